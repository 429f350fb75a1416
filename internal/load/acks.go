package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// acks is the file of acknowledgements. Each line is one write on a file opened
// for appending, and is written before its phone counts as acknowledged: if the
// tool is killed, nothing is missing that it has said. (Only a power cut could
// take lines; the file is what a test compares with, not a record of its own.)
type acks struct{ file *os.File } // nil: no file

// openAcks opens or makes the file. Part of a line at its end, from a disk that
// was full, was told to nobody and is cut off.
func openAcks(path string) (acks, error) {
	if path == "" {
		return acks{}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return acks{}, fmt.Errorf("open the file for acknowledgements: %w", err)
	}
	if err := cutPartialLine(f); err != nil {
		return acks{}, errors.Join(fmt.Errorf("repair the end of the file for acknowledgements: %w", err), f.Close())
	}
	return acks{f}, nil
}

func cutPartialLine(f *os.File) error {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	const longest = 8 << 10 // of a line
	from := max(info.Size()-longest, 0)
	tail := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == len(tail) {
		return nil
	}
	if end == 0 && from > 0 {
		return errors.New("its end is not lines: it is no file of acknowledgements")
	}
	return f.Truncate(from + int64(end))
}

// write appends whole lines. It is safe for concurrent use.
func (a acks) write(lines []byte) error {
	if a.file == nil {
		return nil
	}
	if _, err := a.file.Write(lines); err != nil {
		return fmt.Errorf("write an acknowledgement: %w", err)
	}
	return nil
}

func (a acks) close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}
