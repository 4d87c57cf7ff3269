package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-net/fairlead/model"
)

// listVersions are those of the CNI specification that have lists of plugins,
// oldest first.
var listVersions = [...]string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// plainVersion is the newest that every runtime in use knows: version 1.1 came
// with cniVersions, from which a runtime chooses.
const plainVersion = "1.0.0"

// unaskedVersion is taken for one that a plugin knows which does not run in the
// agent's container, because it is linked with libraries of the node. All do.
const unaskedVersion = "0.4.0"

// chain is Fairlead's plugin and those that follow it.
type chain struct {
	plugins  []any           // elements of the list
	versions []string        // that all support, oldest first; not empty
	limit    string          // the plugin that excluded the newest, and why
	problems []model.Problem // of those that are left out
}

// newChain is the chain on a node. versions asks a plugin, and returns its error
// as to why it cannot be used.
func newChain(node, socket string, plugins []string, versions func(name string) ([]string, error)) *chain {
	c := &chain{versions: listVersions[:], plugins: []any{map[string]any{
		"type": pluginName, "socket": socket, "capabilities": map[string]bool{"portMappings": true},
	}}}
	for _, text := range plugins {
		var plugin struct{ Type string }
		err := json.Unmarshal([]byte(text), &plugin)
		if err == nil && plugin.Type == "portmap" {
			err = errors.New("host ports are Fairlead's own")
		}
		var supported []string
		if err == nil {
			supported, err = versions(plugin.Type)
		}
		unasked := errors.Is(err, errUnasked)
		if unasked {
			err = nil
		}
		left := slices.DeleteFunc(slices.Clone(c.versions), func(v string) bool { return !slices.Contains(supported, v) })
		if err == nil && len(left) == 0 {
			err = fmt.Errorf("it supports versions %v of CNI, the plugins before it %v", supported, c.versions)
		}
		if err != nil {
			c.problems = append(c.problems, leftOut(node, plugin.Type, err))
			continue
		}
		if newest(left) != newest(c.versions) {
			c.limit = plugin.Type + " supports no newer one"
			if unasked {
				c.limit = plugin.Type + " cannot be asked for a newer one, as it does not run in the agent's container"
			}
		}
		c.versions = left
		c.plugins = append(c.plugins, json.RawMessage(text))
	}
	return c
}

func newest(versions []string) string { return versions[len(versions)-1] }

func leftOut(node, plugin string, err error) model.Problem {
	return model.Problem{
		Kind: "Node", Name: node, Field: "CNI plugin " + plugin, Reason: "PluginLeftOut",
		Message: "pods are connected without it: " + err.Error(),
		Remedy:  "install it in the node's directory of CNI plugins, or take it out of spec.cni.plugins of Network/default",
	}
}

// config is the file that runtimes read. It offers the newest version to those
// that know cniVersions, and one that they know to others.
func (c *chain) config() ([]byte, error) {
	list := map[string]any{"name": "fairlead", "cniVersion": newest(c.versions), "plugins": c.plugins}
	if at := slices.Index(c.versions, plainVersion); at >= 0 && at < len(c.versions)-1 {
		list["cniVersion"], list["cniVersions"] = plainVersion, c.versions[at:]
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the CNI configuration: %w", err)
	}
	return append(text, '\n'), nil
}

// cost is what is lost by the version that is used, as a sentence; empty if it
// is the newest.
func (c *chain) cost() string {
	used := newest(c.versions)
	if used == newest(listVersions[:]) {
		return ""
	}
	lost := "GC and STATUS"
	if slices.Index(listVersions[:], used) < slices.Index(listVersions[:], "0.4.0") {
		lost = "CHECK, " + lost
	}
	return fmt.Sprintf("CNI is used at version %s, because %s: the container runtime does not ask for %s", used, c.limit, lost)
}

// errUnasked is of a plugin that is there but does not run here.
var errUnasked = errors.New("it does not run in the agent's container")

// binaries asks plugins for their versions, each file once.
type binaries struct {
	dir   string
	asked map[string]answer // by name
}

// answer is that of the file as it was.
type answer struct {
	file     os.FileInfo
	versions []string
	err      error
}

// askTime is how long a plugin may take to tell its versions.
const askTime = 3 * time.Second

// versions returns an error that says why the plugin cannot be used.
func (b *binaries) versions(ctx context.Context, name string) ([]string, error) {
	path := filepath.Join(b.dir, name)
	if name == "" || filepath.Base(path) != name {
		return nil, fmt.Errorf("%q is not the name of a file", name)
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("it is not there: %w", err)
	}
	if was, ok := b.asked[name]; ok && os.SameFile(was.file, file) &&
		was.file.ModTime().Equal(file.ModTime()) && was.file.Size() == file.Size() && was.file.Mode() == file.Mode() {
		return was.versions, was.err
	}
	versions, err := askVersions(ctx, path)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if b.asked == nil {
		b.asked = map[string]answer{}
	}
	b.asked[name] = answer{file, versions, err}
	return versions, err
}

func askVersions(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	command := exec.CommandContext(ctx, path)
	command.WaitDelay = time.Second // for children that keep its output open
	// Old plugins want all of the environment, whatever the verb.
	command.Env = append(os.Environ(), "CNI_COMMAND=VERSION", "CNI_NETNS=none", "CNI_IFNAME=none", "CNI_PATH=none")
	command.Stdin = bytes.NewReader(fmt.Appendf(nil, `{"cniVersion": %q}`, version.Current()))
	out, err := command.Output()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, fs.ErrNotExist): // its dynamic loader
		return []string{"0.3.0", "0.3.1", unaskedVersion}, errUnasked
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it does not tell its versions within %v", askTime)
	case errors.As(err, &failed):
		return nil, fmt.Errorf("asked for its versions, it fails: %w: %.200s", err, bytes.TrimSpace(append(failed.Stderr, out...)))
	case err != nil:
		return nil, fmt.Errorf("asked for its versions, it fails: %w", err)
	}
	answer, err := (&version.PluginDecoder{}).Decode(out)
	if err != nil {
		return nil, fmt.Errorf("asked for its versions, it says %.200q", out)
	}
	return answer.SupportedVersions(), nil
}
