package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

// spool has the DELs that the CNI plugin put down while no agent took them.
type spool struct {
	dir string
	log *slog.Logger
}

// written are the changes of the directory that tell of a DEL.
const written = unix.IN_MOVED_TO

// writingTime is how long the plugin may take to write a file; what is older
// is of one that was killed.
const writingTime = time.Minute

// pending returns the DELs that wait. What is not one is removed.
func (s *spool) pending() []model.AttachmentKey {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot look for the DELs that wait", "error", err)
		}
		return nil
	}
	var keys []model.AttachmentKey
	for _, file := range files {
		path := filepath.Join(s.dir, file.Name())
		if stat, err := file.Info(); strings.HasPrefix(file.Name(), ".") && err == nil && time.Since(stat.ModTime()) < writingTime {
			continue
		}
		request, err := cni.ReadSpooled(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			s.log.Warn("removing what is no DEL", "error", errors.Join(err, os.RemoveAll(path)))
		default:
			keys = append(keys, model.AttachmentKey{ContainerID: request.ContainerID, Interface: request.Interface})
		}
	}
	return keys
}

func (s *spool) path(key model.AttachmentKey) string {
	return filepath.Join(s.dir, cni.SpoolName(key.ContainerID, key.Interface))
}

// has tells whether a DEL of this attachment waits.
func (s *spool) has(key model.AttachmentKey) bool {
	return unix.Access(s.path(key), unix.F_OK) == nil
}

// done removes one that was carried out.
func (s *spool) done(key model.AttachmentKey) error {
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the DEL that waited: %w", err)
	}
	return nil
}
