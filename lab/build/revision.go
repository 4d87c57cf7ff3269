package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoRevision says that a checkout does not have a commit, as one that is
// shallow, or no repository at all.
var ErrNoRevision = errors.New("no such commit")

// Fairlead builds Fairlead alone, of a commit of the checkout or, if revision is
// empty, of the checkout as it is, and says where the source of that lies. Of
// the programs, Kube is empty.
func (r Request) Fairlead(ctx context.Context, revision string) (programs Programs, source string, err error) {
	if r, err = r.inCache(); err != nil {
		return Programs{}, "", err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return Programs{}, "", err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return Programs{}, "", err
	}
	defer unlock()
	if revision != "" {
		if r.Source, err = r.export(ctx, revision); err != nil {
			return Programs{}, "", err
		}
	}
	programs, err = r.fairlead(ctx)
	return programs, r.Source, err
}

// export writes the files of a commit into the cache, once.
func (r Request) export(ctx context.Context, revision string) (dir string, err error) {
	name, err := exec.CommandContext(ctx, "git", "-C", r.Source, "rev-parse", "--quiet", "--verify", revision+"^{commit}").Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s in %s", ErrNoRevision, revision, r.Source)
	}
	// The path names the checkout as well: what is built has a directory for each.
	sum := sha256.Sum256([]byte(r.Source))
	dir = filepath.Join(r.Cache, "revision-"+strings.TrimSpace(string(name))[:16]+"-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh, err := os.MkdirTemp(r.Cache, "building-")
	if err != nil {
		return "", fmt.Errorf("making a build directory: %w", err)
	}
	defer os.RemoveAll(fresh)
	archive := filepath.Join(fresh, "archive.tar")
	for _, argv := range [][]string{
		{"git", "-C", r.Source, "archive", "--output=" + archive, strings.TrimSpace(string(name))},
		{"tar", "-xf", archive, "-C", fresh},
		{"rm", archive},
	} {
		if output, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("exporting %s: %s: %w\n%s", revision, strings.Join(argv, " "), err, output)
		}
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", fmt.Errorf("exporting %s: %w", revision, err)
	}
	return dir, nil
}
