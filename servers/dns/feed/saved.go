package feed

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fairlead-net/fairlead/model"
)

// Save writes a state to a file, all of it or nothing.
func Save(path string, state State, program string) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save the names: %w", err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name()) // it is gone if it was renamed
	}()
	out := writer{to: bufio.NewWriterSize(file, 64<<10)}
	err = errors.Join(
		out.put("hello", hello{Version, program, state.Boot}),
		out.put("serving", state.Serving),
	)
	if state.Snapshot != nil && state.Snapshot.NamesKnown {
		err = errors.Join(err,
			tell(&model.Snapshot{}, state.Snapshot, out.line),
			out.put("revision", revision{state.Snapshot.Revision, true}))
	}
	if err = errors.Join(err, out.to.Flush(), file.Close()); err != nil {
		return fmt.Errorf("save the names: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("save the names: %w", err)
	}
	return nil
}

// Load reads what Save wrote. A file that is not there gives the zero State, and
// so does one that is not understood, with an error.
func Load(path string) (State, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("load the names: %w", err)
	}
	defer file.Close()
	listener := listen(State{})
	for lines := json.NewDecoder(bufio.NewReaderSize(file, 64<<10)); ; {
		var l line
		err := lines.Decode(&l)
		if err == nil {
			_, err = listener.hear(l)
		}
		if err == io.EOF {
			state := listener.state
			state.Confirmed = false
			return state, nil
		}
		if err != nil {
			return State{}, fmt.Errorf("load the names from %s: %w", path, err)
		}
	}
}
