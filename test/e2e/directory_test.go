package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tidegate/tidegate/test/server"
)

// original is the Trial service's method as the original file declares it.
func original(t *testing.T) protoreflect.MethodDescriptor {
	t.Helper()
	raw, err := os.ReadFile("../../api/trial/v1/testdata/original.binpb")
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(set.GetFile()[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Services().ByName("Trial").Methods().ByName("getPatientTrials")
}

// trialsOf calls it as a client made from that file does, and returns what it
// reads of each trial.
func trialsOf(t *testing.T, conn grpc.ClientConnInterface, patient string) (list []string, err error) {
	t.Helper()
	method := original(t)
	in, out := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	in.Set(method.Input().Fields().ByName("patientId"), protoreflect.ValueOfString(patient))
	if err := conn.Invoke(t.Context(), "/trial.Trial/getPatientTrials", in, out); err != nil {
		return nil, err
	}
	trials := out.Get(method.Output().Fields().ByName("trials")).List()
	for i := range trials.Len() {
		m := trials.Get(i).Message()
		text := ""
		for _, name := range []protoreflect.Name{"trialId", "trialName", "status"} {
			text += m.Get(m.Descriptor().Fields().ByName(name)).String() + "|"
		}
		list = append(list, text)
	}
	return list, nil
}

var demoTrials = []string{"T001|A Phase III Study of DrugX|Recruiting|", "T002|Observational Study of DiseaseY|Active|"}

// A client of the original contract gets an id's trials in both shapes, and a
// patient sees the trial of its token at the gateway.
func TestPatientsTrials(t *testing.T) {
	inBothShapes(t, func(t *testing.T, g ground) {
		s := g.start(20)
		conn, err := grpc.NewClient(s.RPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for patient, want := range map[string][]string{"P-000002": demoTrials, "P-000001": demoTrials[:1], "P-404": nil} {
			if got, err := trialsOf(t, conn, patient); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s is in %q, %v; want %q", patient, got, err, want)
			}
		}
		for i, trial := range []string{"T001", "T002"} {
			seenAtGateway(t, s, trial, demoTrials[i])
		}
		staff := user{t, s, s.Staff("coordinator", "cora", "--trial", "T001")}
		staff.get("/v1/patient/trials", http.StatusForbidden, nil)
		s.Stop()
	})
}

// seenAtGateway waits until the gateway's copy has the patient's enrolment, and
// wants nothing of another trial.
func seenAtGateway(t *testing.T, s *server.Server, trial, want string) {
	t.Helper()
	phone := user{t, s, s.Token("P-000002", trial)}
	eventually(t, "the gateway shows the patient's trial", func() (bool, string) {
		var answer struct {
			Trials []struct{ TrialID, Name, Status, EnrollmentStatus string }
		}
		code, body := s.Get("/v1/patient/trials", phone.token)
		if code != http.StatusOK {
			return false, body
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			return false, err.Error()
		}
		var got []string
		for _, trial := range answer.Trials {
			if trial.EnrollmentStatus == "Enrolled" {
				got = append(got, trial.TrialID+"|"+trial.Name+"|"+trial.Status+"|")
			}
		}
		return slices.Equal(got, []string{want}), body
	})
}

// The same client finds the service through etcd, as go-zero's clients do, and
// is served while one instance of two is killed.
func TestOriginalClientThroughEtcd(t *testing.T) {
	parallel(t)
	s := newSite(t)
	s.start(20)
	logx.Disable() // go-zero's client writes to standard output
	client, err := zrpc.NewClient(zrpc.RpcClientConf{
		Etcd: discov.EtcdConf{Hosts: []string{s.etcd.Addr()}, Key: s.prefix + "/trial.rpc"}, NonBlock: true, Timeout: 5000,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Conn().Close()
	got, err := trialsOf(t, client.Conn(), "P-000002")
	if err != nil || !slices.Equal(got, demoTrials) {
		t.Fatalf("through etcd: %q, %v", got, err)
	}
	// Killed and back at the same address: found again.
	s.Named("trial-1").Kill()
	if _, err := trialsOf(t, client.Conn(), "P-000002"); err == nil {
		t.Error("a killed service answers")
	}
	r, err := s.Start("trial-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is served again", func() (bool, string) {
		got, err := trialsOf(t, client.Conn(), "P-000002")
		if err != nil {
			return false, err.Error()
		}
		return slices.Equal(got, demoTrials), ""
	})
	s.mustStop()
}
