// Generate makes the RPC code from api/trial/v1/trial.proto: the messages with
// protoc, the service in go-zero's layout with goctl. It is run by `make
// generate`, needs protoc on the PATH (Debian: protobuf-compiler) and builds
// everything else from this module.
//
// What it read and wrote is told, with SHA-256, in api/trial/v1/generated.sum;
// a test compares, so that stale code shows without any of these tools.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const (
	module = "github.com/tidegate/tidegate"
	api    = "api/trial/v1"
	edge   = "internal/trialrpc"
)

// programs are built from this module's go.mod.
var programs = []string{
	"github.com/zeromicro/go-zero/tools/goctl",
	"google.golang.org/protobuf/cmd/protoc-gen-go",
	"google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}

func main() {
	if err := generate(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate() error {
	root, err := filepath.Abs("../..") // the module's folder is where go run -C starts this
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("protoc"); err != nil {
		return fmt.Errorf("protoc is not on the PATH: install it (Debian: apt-get install protobuf-compiler): %w", err)
	}
	tools := filepath.Join(root, "bin", "tools")
	if err := os.MkdirAll(tools, 0o750); err != nil {
		return err
	}
	if err := run(".", "go", append([]string{"build", "-trimpath", "-o", tools + string(filepath.Separator)}, programs...)...); err != nil {
		return err
	}
	if err := os.Setenv("PATH", tools+string(filepath.ListSeparator)+os.Getenv("PATH")); err != nil {
		return err
	}
	// goctl writes the server anew each time, and of config, logic, svc and etc
	// only what is not there.
	if err := run(root, "goctl", "rpc", "protoc", api+"/trial.proto", "-I", api,
		"--go_out=.", "--go_opt=module="+module, "--go-grpc_out=.", "--go-grpc_opt=module="+module,
		"--zrpc_out="+edge, "--client=false", "--style=gozero"); err != nil {
		return err
	}
	// The original contract as a descriptor, from which a test makes its client.
	if err := run(filepath.Join(root, api, "testdata"), "protoc", "--descriptor_set_out=original.binpb", "original.proto"); err != nil {
		return err
	}
	return finish(root)
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// finish takes away what is not used and gives the package its own name.
func finish(root string) error {
	// The program that would run the service by itself: Tidegate does.
	if err := os.Remove(filepath.Join(root, edge, "trial.go")); err != nil && !os.IsNotExist(err) {
		return err
	}
	made, err := filepath.Glob(filepath.Join(root, edge, "internal", "*", "*.go"))
	if err != nil {
		return err
	}
	for _, path := range made {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fixed := bytes.ReplaceAll(text, []byte("\t\""+module+"/"+api+"\""), []byte("\ttrialv1 \""+module+"/"+api+"\""))
		fixed = bytes.ReplaceAll(fixed, []byte("v1_trialv1."), []byte("trialv1."))
		if bytes.Equal(text, fixed) {
			continue
		}
		if err := os.WriteFile(path, fixed, 0o644); err != nil {
			return err
		}
	}
	return sum(root)
}

// sum writes the hashes of all input and output.
func sum(root string) error {
	paths := []string{
		api + "/trial.proto", api + "/trial.pb.go", api + "/trial_grpc.pb.go", edge + "/internal/server/trialserver.go",
		api + "/testdata/original.proto", api + "/testdata/original.binpb", "tools/goctl/go.mod", "tools/goctl/generate/main.go",
	}
	slices.Sort(paths)
	var b bytes.Buffer
	for _, path := range paths {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(text), path)
	}
	return os.WriteFile(filepath.Join(root, api, "generated.sum"), b.Bytes(), 0o644)
}
