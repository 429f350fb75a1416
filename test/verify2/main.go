package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

// command is the program without the process around it; it returns the exit status.
func command(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("verify2", flag.ContinueOnError)
	flags.SetOutput(stderr)
	data := flags.String("data", "", "data folder, with journal.db")
	acks := flags.String("acks", "", "acknowledgements as `tidegate load --acks` writes them")
	keyFile := flags.String("keys", "", "the answer of GET /v1/keys")
	fingerprint := flags.String("root", "", "fingerprint of the root key")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *data == "" || flags.NArg() > 0 || (*keyFile == "") != (*fingerprint == "") {
		fmt.Fprintln(stderr, "usage: verify2 --data DIR [--acks FILE] [--keys FILE --root FINGERPRINT]")
		return 2
	}
	code, err := verify(*data, *acks, *keyFile, *fingerprint, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "verify2: %v\n", err)
	}
	return code
}

func verify(data, acks, keyFile, fingerprint string, out io.Writer) (int, error) {
	var keys keyList
	if keyFile != "" {
		b, err := os.ReadFile(keyFile)
		if err != nil {
			return 2, err
		}
		if keys, err = readKeys(b, fingerprint); err != nil {
			return 1, err
		}
	}
	var bytes int64
	if acks != "" {
		var err error
		if bytes, err = size(acks); err != nil {
			return 2, err
		}
	}
	a, err := auditData(data)
	if err != nil {
		return 2, err
	}
	a.print(out)
	bad := a.faults.count > 0
	if acks != "" {
		v, err := judge(acks, bytes, a, keys)
		if err != nil {
			return 2, err
		}
		v.print(out)
		bad = bad || v.lost+v.altered+v.doubled+v.unproven > 0
	}
	if bad {
		return 1, nil
	}
	return 0, nil
}

func (a *audit) print(out io.Writer) {
	fmt.Fprintf(out, "frames %d facts %d runs %d erased %d\n", a.frames, a.facts, len(a.runs), len(a.erased))
	for _, trial := range slices.Sorted(maps.Keys(a.trials)) {
		b := a.trials[trial]
		fmt.Fprintf(out, "trial %s accepted %d first %d repeated %d other %d erased %d\n", trial, b.accepted, b.first, b.repeated, b.other, b.erased)
	}
	if a.tail {
		fmt.Fprintln(out, "note: the -wal ends in a frame that is cut off or damaged; SQLite drops it and all behind it")
	}
	a.faults.print(out)
	fmt.Fprintf(out, "faults %d\n", a.faults.count)
}

func (v *verdict) print(out io.Writer) {
	how := "signatures checked"
	if !v.signatures {
		how = "signatures not checked: give --keys and --root"
	}
	if v.cut {
		fmt.Fprintln(out, "note: the last line of the acknowledgements has no end and was not counted")
	}
	v.faults.print(out)
	fmt.Fprintf(out, "acknowledged %d reports %d erased %d unproven %d (%s)\n", v.acknowledged, v.reports, v.erased, v.unproven, how)
	fmt.Fprintf(out, "lost %d altered %d doubled %d\n", v.lost, v.altered, v.doubled)
}

func (f *faults) print(out io.Writer) {
	for _, s := range f.list {
		fmt.Fprintf(out, "fault: %s\n", s)
	}
	if more := f.count - int64(len(f.list)); more > 0 {
		fmt.Fprintf(out, "fault: and %d more\n", more)
	}
}
