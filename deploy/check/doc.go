// Package check holds deploy/ to the rules of the engines it is for, and to some
// of Tidegate's own, without any engine: the Dockerfile by BuildKit's parser and
// linter, compose.yaml by Compose's loader and schema, the manifests as kustomize
// builds them and the Kubernetes API's types read them, units by systemd's own
// verifier, configuration files by tidegate config check.
//
// Its tests run all of that on the files as they are, and on broken ones.
package check

import "fmt"

// problems are what a check found, a sentence each.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }
