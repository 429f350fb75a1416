// Command tidegate is the back end of electronic patient-reported outcomes; see
// README.md, or run it with --help.
package main

import (
	"os"

	"github.com/tidegate/tidegate/internal/app"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(app.Main(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
