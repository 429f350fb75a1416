package app

import (
	"errors"
	"runtime"
	"runtime/debug"
)

type configCmd struct {
	Default configDefaultCmd `cmd:"" help:"Print the defaults as a file."`
	Check   configCheckCmd   `cmd:"" help:"Check a file together with the environment, and warn of unwise settings."`
	Doc     configDocCmd     `cmd:"" help:"Print the defaults with every setting explained."`
}

type configDefaultCmd struct{}

// Help shows an example.
func (configDefaultCmd) Help() string { return help("", "tidegate config default > tidegate.yaml") }

// Run prints the defaults.
func (configDefaultCmd) Run(con *console) error {
	return writeConfig(con.out, NewDefaultConfig(), false)
}

type configDocCmd struct{}

// Help shows an example.
func (configDocCmd) Help() string { return help("", "tidegate config doc | less") }

// Run prints the manual of the settings.
func (configDocCmd) Run(con *console) error {
	con.printf("# Every setting with its default. Order: defaults, then this file (--config), then the\n# environment, then flags. An unknown key is an error.\n\n")
	return writeConfig(con.out, NewDefaultConfig(), true)
}

type configCheckCmd struct {
	File string `arg:"" optional:"" help:"File to check; without it, the environment alone." type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (configCheckCmd) Help() string { return help("", "tidegate config check tidegate.yaml") }

// Run checks a configuration.
func (c configCheckCmd) Run(con *console) error {
	cfg, err := LoadConfig(c.File, con.environ)
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	warnings := cfg.Warnings()
	if c.JSON {
		return con.printJSON(map[string]any{"ok": true, "warnings": append([]string{}, warnings...)})
	}
	for _, w := range warnings {
		con.printf("warning: %s\n", w)
	}
	con.printf("ok\n")
	return nil
}

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help shows an example.
func (versionCmd) Help() string { return help("", "tidegate version --json") }

// Run prints the version.
func (c versionCmd) Run(con *console) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary holds no build information")
	}
	sqlite := ""
	for _, d := range info.Deps {
		if d.Path == "modernc.org/sqlite" {
			sqlite = d.Version
		}
	}
	if c.JSON {
		return con.printJSON(map[string]string{
			"version": con.version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "sqliteDriver": sqlite,
		})
	}
	con.printf("tidegate %s (%s, %s/%s, sqlite driver %s)\n", con.version, runtime.Version(), runtime.GOOS, runtime.GOARCH, sqlite)
	return nil
}
