// Package app composes Tidegate: configuration, the roles in one ordered
// table, the choice of adapters, start and stop, and the command line. Only
// this package knows which shape runs.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes of every command.
const (
	exitDone    = 0
	exitFailure = 1 // a finding, or something failed
	exitUsage   = 2 // wrong use
)

type cli struct {
	Demo     demoCmd     `cmd:"" help:"Serve a fresh demo registry and print requests to paste. Begin here."`
	Serve    serveCmd    `cmd:"" help:"Serve: take reports, project them, answer screens."`
	Seed     seedCmd     `cmd:"" help:"Write the demo registry (trials, sites, participants) as facts."`
	Token    tokenCmd    `cmd:"" help:"Print a token for a participant, a staff member or a relay."`
	Load     loadCmd     `cmd:"" help:"Send a wave of simulated phones to a server."`
	Verify   verifyCmd   `cmd:"" help:"Prove that nothing acknowledged was lost, altered or counted twice; or check one receipt."`
	Rebuild  rebuildCmd  `cmd:"" help:"Drop the tables and project them again from the journal."`
	Backup   backupCmd   `cmd:"" help:"Copy the data folder consistently, also while a server runs."`
	Restore  restoreCmd  `cmd:"" help:"Bring a backup back into an empty data folder."`
	Migrate  migrateCmd  `cmd:"" help:"Make or update the schemas of journal and vault in PostgreSQL."`
	Transfer transferCmd `cmd:"" help:"Move a data folder to PostgreSQL."`
	Ship     shipCmd     `cmd:"" help:"Keep a verified second copy of the journal."`
	Keys     keysCmd     `cmd:"" help:"List, rotate and retire signing keys."`
	Era      eraCmd      `cmd:"" help:"Go on with a journal that ends below its last anchor."`
	Config   configCmd   `cmd:"" help:"Print defaults, check a file, explain every setting."`
	Status   statusCmd   `cmd:"" help:"Ask a running server how it is."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// console is where a command reads and writes; tests use their own.
type console struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	version  string
}

func (c *console) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format, args...) }

// progress prints a line that overwrites itself, on a terminal only.
func (c *console) progress(format string, args ...any) {
	if isTerminal(c.err) {
		_, _ = fmt.Fprintf(c.err, "\r\x1b[K"+format, args...)
	}
}

func (c *console) progressDone() {
	if isTerminal(c.err) {
		_, _ = fmt.Fprint(c.err, "\r\x1b[K")
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// errFindings ends a command with exit code 1 after it has said all itself.
var errFindings = errors.New("findings")

// usageError ends a command with exit code 2.
type usageError struct{ error }

const description = `Tidegate takes patients' reports, answers only when they are durable, and can prove
afterwards that none was lost, altered or counted twice.

Try:  tidegate demo`

// Main runs the command line of the given version and returns the exit code.
func Main(version string, args []string, in io.Reader, out, errw io.Writer) int {
	con := &console{in: in, out: out, err: errw, environ: os.Environ(), version: version}
	var c cli
	exit := -1
	parser, err := kong.New(&c, kong.Name("tidegate"), kong.Description(description), kong.Writers(out, errw),
		kong.Exit(func(code int) { exit = code }), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true, Tree: true}), kong.Help(printHelp))
	if err != nil {
		_, _ = fmt.Fprintln(errw, "tidegate:", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 {
		return exit // --help has printed
	}
	if err != nil {
		_, _ = fmt.Fprintf(errw, "tidegate: %v\nTry: %s --help\n", err, commandOf(err))
		return exitUsage
	}
	ctx, stop := signalContext(errw)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(con)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFindings):
		return exitFailure
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(errw, "tidegate: %v\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(errw, "tidegate: %v\n", err)
		return exitFailure
	}
}

// printHelp prints kong's help. A command that does something without a further
// word shows the flags of what it does then: kong would hide them.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if node := ctx.Selected(); node != nil && node.DefaultCmd != nil {
		node.Flags = append(node.Flags, node.DefaultCmd.Flags...)
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// commandOf is as much of the command as could be understood, so that the hint
// leads to the help that says what was wrong.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return "tidegate " + node.Path()
		}
	}
	return "tidegate"
}

// help is a command's text, with its example on a line of its own: kong folds
// the lines of a paragraph into one another, but not those of an indented one.
func help(text, example string) string {
	if text != "" {
		text += "\n\n"
	}
	return text + "Example:\n\n  " + example
}

// printJSON prints a result for programs.
func (c *console) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note says something beside the result: on the side of errors, so that the
// result alone can be read by a program.
func (c *console) note(format string, args ...any) {
	c.progressDone()
	_, _ = fmt.Fprintf(c.err, "tidegate: note: "+format+"\n", args...)
}

// signalContext ends with the first SIGINT or SIGTERM, so that a command can
// stop cleanly. A second one ends the process at once if a person meant it:
// see impatient.
func signalContext(errw io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first, ok := <-signals
		if !ok {
			return
		}
		at := time.Now()
		cancel()
		for next := range signals {
			if impatient(first, next, time.Since(at)) {
				_, _ = fmt.Fprintln(errw, "tidegate: second signal: stopped at once")
				os.Exit(exitFailure) //nolint:forbidigo // what a second signal asks for: nothing more is waited for
			}
			if next == os.Interrupt {
				first = next
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); close(signals); cancel() }
}

// sameStop is the time in which signals are taken for one and the same wish:
// supervisors signal a process and then its group.
const sameStop = time.Second

// impatient says whether a signal that comes so long after the first asks to
// end without waiting for requests in hand: a second Ctrl-C, or anything later
// than sameStop.
func impatient(first, next os.Signal, after time.Duration) bool {
	return after >= sameStop || first == os.Interrupt && next == os.Interrupt
}
