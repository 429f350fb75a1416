package trialrpc_test

import (
	"maps"
	"os"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// original calls getPatientTrials as a client made from the original contract
// does: with that file's own descriptor, and nothing of ours.
func original(t *testing.T, conn *grpc.ClientConn, patient string) ([]map[string]string, error) {
	t.Helper()
	raw, err := os.ReadFile("../../api/trial/v1/testdata/original.binpb")
	must(t, err)
	var set descriptorpb.FileDescriptorSet
	must(t, proto.Unmarshal(raw, &set))
	file, err := protodesc.NewFile(set.GetFile()[0], nil)
	must(t, err)
	method := file.Services().ByName("Trial").Methods().ByName("getPatientTrials")
	in, out := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	in.Set(method.Input().Fields().ByName("patientId"), protoreflect.ValueOfString(patient))
	if err := conn.Invoke(t.Context(), "/trial.Trial/getPatientTrials", in, out); err != nil {
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

// bothTrials is the answer for P-2.
var bothTrials = []map[string]string{
	{"trialId": "T001", "trialName": "A Phase III Study of DrugX", "status": "Recruiting"},
	{"trialId": "T002", "trialName": "Observational Study of DiseaseY", "status": "Active"},
}

func TestOriginalClient(t *testing.T) {
	w := newWorld(t)
	conn := connect(t, w.serve(nil).addr)
	trials, err := original(t, conn, "P-2")
	if err != nil || !slices.EqualFunc(trials, bothTrials, maps.Equal) {
		t.Errorf("P-2 is in %v, %v; want %v", trials, err, bothTrials)
	}
	if trials, err := original(t, conn, "P-404"); err != nil || len(trials) != 0 {
		t.Errorf("somebody unknown is in %v, %v; want an empty list", trials, err)
	}
	for _, bad := range []string{"", "P 1 ", "\x00", "Zoë"} {
		_, err := original(t, conn, bad)
		if f := failureOf(err); f.code != codes.InvalidArgument || len(f.fields) != 1 || f.fields[0] != "patientId" {
			t.Errorf("patient %q: %v, %+v", bad, err, f)
		}
	}
}
