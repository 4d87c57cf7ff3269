package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// largestBundle in bytes leaves room for what frames the files: a bundle has
// less than 25 MB, which mail still takes.
const largestBundle = 23 << 20

// archive writes a compressed tar that does not exceed a size. What does not fit
// is cut, and noted. Everything is scrubbed.
type archive struct {
	dir     string
	at      time.Time
	gzip    *gzip.Writer
	tar     *tar.Writer
	left    int // bytes, compressed
	allowed int // of those, for what is added now
	notes   []string
	err     error // the first
}

// newArchive writes at most so many bytes, and a little that frames them.
func newArchive(to io.Writer, dir string, at time.Time, largest int) *archive {
	compressed := gzip.NewWriter(to)
	return &archive{
		dir: dir, at: at, gzip: compressed, tar: tar.NewWriter(compressed),
		left: largest, allowed: largest / 4,
	}
}

// draft is a file that takes its place when it is whole, and only then.
type draft struct {
	*os.File
	path string // its place; empty of what cannot be replaced, such as a pipe
}

// draftOf is for a file of this name, which may exist.
func draftOf(path string) (*draft, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if stat, err := os.Stat(path); err == nil && !stat.Mode().IsRegular() {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &draft{File: file}, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for its owner alone
	return &draft{file, path}, err
}

func (d *draft) keep() error {
	if err := d.Close(); err != nil {
		return errors.Join(err, d.drop())
	}
	if d.path == "" {
		return nil
	}
	if err := os.Rename(d.Name(), d.path); err != nil {
		return errors.Join(err, d.drop())
	}
	return nil
}

// drop leaves no trace of it.
func (d *draft) drop() error {
	_ = d.Close() // it may be closed
	if d.path == "" {
		return nil
	}
	return os.Remove(d.Name())
}

// share divides what is left among so many that follow.
func (a *archive) share(among int) { a.allowed = a.left / among }

// note says something in README.txt.
func (a *archive) note(text string, values ...any) {
	a.notes = append(a.notes, fmt.Sprintf(text, values...))
}

// failed notes an error, if it is one.
func (a *archive) failed(err error) {
	if err != nil {
		a.note("%v", err)
	}
}

// add adds a file. One that is empty is left out.
func (a *archive) add(name string, text []byte, tail bool) {
	whole := len(text)
	if whole == 0 {
		return
	}
	size := compressedSize(text)
	for size > a.allowed {
		// A tenth less than what should fit: text does not compress evenly.
		keep := int(float64(len(text)) * 0.9 * float64(a.allowed) / float64(size))
		if keep < 1000 {
			a.note("%s: left out, its %d bytes do not fit", name, whole)
			return
		}
		text = cut(text, keep, tail)
		size = compressedSize(text)
	}
	if len(text) < whole {
		a.note("%s: cut, of its %d bytes the %s are there", name, whole, map[bool]string{true: "last", false: "first"}[tail])
	}
	a.left -= size
	a.allowed -= size
	a.write(name, scrub(text)) // which makes it larger only where it is much smaller than it was
}

// cut keeps some bytes, of whole lines if it can: of half a secret, scrub would
// not know what it is. It says so where the rest was.
func cut(text []byte, keep int, tail bool) []byte {
	mark := []byte("\n[cut here by fairlead debug bundle]\n")
	if tail {
		text = text[len(text)-keep:]
		return append(mark, text[1+bytes.IndexByte(text, '\n'):]...)
	}
	text = text[:keep]
	if end := bytes.LastIndexByte(text, '\n'); end > 0 {
		text = text[:end]
	}
	return append(bytes.Clone(text), mark...)
}

// compressedSize is what text takes at most, in bytes: the archive itself is
// compressed with more patience.
func compressedSize(text []byte) int {
	var size byteCount
	writer, err := gzip.NewWriterLevel(&size, gzip.BestSpeed)
	if err != nil {
		panic(err) // of a level that there is not
	}
	_, _ = writer.Write(text) // to memory
	_ = writer.Close()
	const header = 200 // of the tar, compressed
	return int(size) + header
}

// byteCount counts what is written.
type byteCount int

func (c *byteCount) Write(p []byte) (int, error) {
	*c += byteCount(len(p))
	return len(p), nil
}

func (a *archive) write(name string, text []byte) {
	if a.err != nil {
		return
	}
	a.err = a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: a.dir + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: a.at, Format: tar.FormatPAX,
	})
	if a.err == nil {
		_, a.err = a.tar.Write(text)
	}
}

// close ends the archive with a page that says what is in it.
func (a *archive) close() error {
	page := fmt.Sprintf(`What fairlead debug bundle %s collected at %s.

cluster/   fairlead status, the Network, what the nodes report, Events, controllers' logs
nodes/X/   of a node: status.json as its agent sees it, snapshot.yaml what it plans
           from, plan.txt what the kernel should have, kernel.json what it has,
           metrics.txt, ready.txt, agent.log, agent-previous.log of the process before,
           dns-clients.json who has asked its DNS server how much

fairlead plan --snapshot nodes/X/snapshot.yaml --node X replays the plan.

No Secret, environment or kubeconfig was read. What looks like a token, a password
or a private key says [taken out].

`, Version, a.at.Format(time.RFC3339))
	if len(a.notes) == 0 {
		page += "Everything was there, and whole.\n"
	} else {
		page += "What is missing, or not whole:\n  " + string(scrub([]byte(strings.Join(a.notes, "\n  ")))) + "\n"
	}
	a.write("README.txt", []byte(page))
	return errors.Join(a.err, a.tar.Close(), a.gzip.Close())
}
