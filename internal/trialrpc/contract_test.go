package trialrpc_test

import (
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// TestOriginalClient calls the service as a client made from the original
// contract does: with that file's own descriptor, and nothing of ours.
func TestOriginalClient(t *testing.T) {
	raw, err := os.ReadFile("../../api/trial/v1/testdata/original.binpb")
	must(t, err)
	var set descriptorpb.FileDescriptorSet
	must(t, proto.Unmarshal(raw, &set))
	file, err := protodesc.NewFile(set.GetFile()[0], nil)
	must(t, err)
	method := file.Services().ByName("Trial").Methods().ByName("getPatientTrials")
	ask := func(conn caller, patient string) ([]map[string]string, error) {
		in := dynamicpb.NewMessage(method.Input())
		in.Set(method.Input().Fields().ByName("patientId"), protoreflect.ValueOfString(patient))
		out := dynamicpb.NewMessage(method.Output())
		if err := conn.call("/trial.Trial/getPatientTrials", in, out); err != nil {
			return nil, err
		}
		list := out.Get(method.Output().Fields().ByName("trials")).List()
		var trials []map[string]string
		for i := range list.Len() {
			trial := map[string]string{}
			list.Get(i).Message().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
				trial[string(f.Name())] = v.String()
				return true
			})
			if unknown := list.Get(i).Message().GetUnknown(); len(unknown) > 0 {
				t.Errorf("the original client gets bytes it does not know: %x", unknown)
			}
			trials = append(trials, trial)
		}
		return trials, nil
	}
	w := newWorld(t)
	conn := caller{t, connect(t, w.serve(nil).addr)}

	trials, err := ask(conn, "P-2")
	must(t, err)
	want := []map[string]string{
		{"trialId": "T001", "trialName": "A Phase III Study of DrugX", "status": "Recruiting"},
		{"trialId": "T002", "trialName": "Observational Study of DiseaseY", "status": "Active"},
	}
	if len(trials) != 2 || !equal(trials[0], want[0]) || !equal(trials[1], want[1]) {
		t.Errorf("P-2 is in %v, want %v", trials, want)
	}
	if trials, err := ask(conn, "P-404"); err != nil || len(trials) != 0 {
		t.Errorf("somebody unknown is in %v, %v; want an empty list", trials, err)
	}
	for _, bad := range []string{"", "P 1 ", "\x00", "Zoë"} {
		_, err := ask(conn, bad)
		if f := failureOf(err); f.code != codes.InvalidArgument || len(f.fields) != 1 || f.fields[0] != "patientId" {
			t.Errorf("patient %q: %v, %+v", bad, err, f)
		}
	}
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range b {
		if a[k] != b[k] {
			return false
		}
	}
	return true
}

// caller calls by a method's path.
type caller struct {
	t    *testing.T
	conn *grpc.ClientConn
}

func (c caller) call(path string, in, out proto.Message) error {
	return c.conn.Invoke(c.t.Context(), path, in, out)
}
