package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// File is a log of lines that takes a bounded space: when it is full it is
// renamed, to the same name with .1 at its end, and begun anew; the oldest of
// those goes.
type File struct {
	Path  string
	Limit int64 // bytes of each file
	Keep  int   // full files

	mu   sync.Mutex
	file *os.File
	size int64
}

// Write adds a line. Who reads the file may move it away.
func (f *File) Write(line []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	if f.size > 0 && f.size+int64(len(line)) > f.Limit {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	n, err := f.file.Write(line)
	f.size += int64(n)
	if err != nil {
		return fmt.Errorf("write to %s: %w", f.Path, err)
	}
	return nil
}

// open opens the file that has the name now.
func (f *File) open() error {
	if f.file != nil {
		named, err := os.Stat(f.Path)
		if own, ownErr := f.file.Stat(); err == nil && ownErr == nil && os.SameFile(named, own) {
			f.size = own.Size()
			return nil
		}
		_ = f.file.Close()
		f.file = nil
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return fmt.Errorf("make the directory of %s: %w", f.Path, err)
	}
	// Who ships logs may not be root, but addresses of pods are not for everybody.
	file, err := os.OpenFile(f.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open the log of drops: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("open the log of drops: %w", err)
	}
	f.file, f.size = file, info.Size()
	return nil
}

func (f *File) rotate() error {
	_ = f.file.Close()
	f.file = nil
	name := func(number int) string {
		if number == 0 {
			return f.Path
		}
		return f.Path + "." + strconv.Itoa(number)
	}
	for number := f.Keep; number > 0; number-- {
		if err := os.Rename(name(number-1), name(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin %s anew: %w", f.Path, err)
		}
	}
	if f.Keep == 0 {
		if err := os.Remove(f.Path); err != nil {
			return fmt.Errorf("begin %s anew: %w", f.Path, err)
		}
	}
	return f.open()
}

// Close closes the file; Write opens it again.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
