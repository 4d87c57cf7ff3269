package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func example(source string) []Image {
	shell := Layer{
		{Path: "/bin/sh", Link: "busybox"},
		{Path: "/bin/busybox", Source: source},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/etc/motd", Content: []byte("hello\n"), Mode: 0o644},
	}
	return []Image{
		{Name: "example.com/shell:1", Layers: []Layer{shell}, Command: []string{"sh"}, Architecture: "arm64"},
		{Name: "example.com/tool", Layers: []Layer{shell, {{Path: "/tool", Source: source}}}, Entrypoint: []string{"/tool"}, User: "1:1"},
	}
}

// read returns the regular files and links of a tar.
func read(t *testing.T, content []byte) map[string]*tar.Header {
	t.Helper()
	headers := map[string]*tar.Header{}
	for reader := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if headers[header.Name] != nil {
			t.Errorf("%s is there twice", header.Name)
		}
		body, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		header.PAXRecords = map[string]string{"body": string(body)}
		headers[header.Name] = header
	}
}

func write(t *testing.T, source string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, example(source)...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSameInputSameBytes(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := write(t, source)
	if err := os.Chtimes(source, time.Now(), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if second := write(t, source); !bytes.Equal(first, second) {
		t.Error("a new time of the source makes another archive")
	}
	if err := os.WriteFile(source, []byte("Program"), 0o700); err != nil {
		t.Fatal(err)
	}
	if second := write(t, source); bytes.Equal(first, second) {
		t.Error("a new content makes the same archive")
	}
}

// TestLayout follows the references from the index to the files of a layer,
// and compares each blob with its digest, as a runtime does.
func TestLayout(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := read(t, write(t, source))
	blob := func(d descriptor) string {
		t.Helper()
		header := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if header == nil || header.Size != d.Size {
			t.Fatalf("no blob %s of %d bytes", d.Digest, d.Size)
		}
		body := header.PAXRecords["body"]
		sum := sha256.Sum256([]byte(body))
		if "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
			t.Errorf("blob %s has another digest", d.Digest)
		}
		return body
	}
	decode := func(text string, into any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	var top index
	decode(files["index.json"].PAXRecords["body"], &top)
	if len(top.Manifests) != 2 {
		t.Fatalf("%d images, want 2", len(top.Manifests))
	}
	for i, want := range []struct{ name, tag string }{{"example.com/shell:1", "1"}, {"example.com/tool", "latest"}} {
		got := top.Manifests[i].Annotations
		if got["io.containerd.image.name"] != want.name || got["org.opencontainers.image.ref.name"] != want.tag {
			t.Errorf("image %d is named %v, want %s and %s", i, got, want.name, want.tag)
		}
	}
	var parts manifest
	decode(blob(top.Manifests[1]), &parts)
	var run config
	decode(blob(parts.Config), &run)
	if run.OS != "linux" || run.Config.User != "1:1" || run.Config.Entrypoint[0] != "/tool" || len(run.RootFS.DiffIDs) != 2 {
		t.Errorf("the configuration is %+v", run)
	}
	layer := read(t, []byte(blob(parts.Layers[0])))
	for name, want := range map[string]struct {
		kind byte
		mode int64
		body string
	}{
		"bin/":        {tar.TypeDir, 0o755, ""},
		"bin/busybox": {tar.TypeReg, 0o755, "program"},
		"bin/sh":      {tar.TypeSymlink, 0o755, ""},
		"tmp/":        {tar.TypeDir, 0o1777, ""},
		"etc/motd":    {tar.TypeReg, 0o644, "hello\n"},
	} {
		got := layer[name]
		if got == nil {
			t.Errorf("no %s in the layer", name)
			continue
		}
		if got.Typeflag != want.kind || got.Mode != want.mode || got.PAXRecords["body"] != want.body {
			t.Errorf("%s: type %c, mode %o, content %q; want %+v", name, got.Typeflag, got.Mode, got.PAXRecords["body"], want)
		}
	}
	// A layer that images share is stored once.
	if len(files) != 8 {
		t.Errorf("%d files in the archive, want 8: two layers, two configurations, two manifests, index.json, oci-layout", len(files))
	}
}

func TestMissingSource(t *testing.T) {
	err := Write(io.Discard, example("/nonexistent")...)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "example.com/shell:1") {
		t.Errorf("error %v; want one that names the image and wraps ErrNotExist", err)
	}
}

// TestArchitectures: images of one name are behind one index, which tells the
// architecture of each.
func TestArchitectures(t *testing.T) {
	variants := []Image{
		{Name: "example.com/tool:2", Architecture: "amd64", Layers: []Layer{{{Path: "/tool", Content: []byte("a")}}}},
		{Name: "example.com/tool:2", Architecture: "arm64", Layers: []Layer{{{Path: "/tool", Content: []byte("b")}}}},
	}
	var out bytes.Buffer
	if err := Write(&out, variants...); err != nil {
		t.Fatal(err)
	}
	files := read(t, out.Bytes())
	var top, parts index
	if err := json.Unmarshal([]byte(files["index.json"].PAXRecords["body"]), &top); err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 || top.Manifests[0].MediaType != indexType || top.Manifests[0].Annotations[nameAnnotaton] != "example.com/tool:2" {
		t.Fatalf("the archive has %+v, want one index of that name", top.Manifests)
	}
	if err := json.Unmarshal([]byte(files[blobPath(top.Manifests[0].Digest)].PAXRecords["body"]), &parts); err != nil {
		t.Fatal(err)
	}
	if len(parts.Manifests) != 2 {
		t.Fatalf("%d manifests, want 2", len(parts.Manifests))
	}
	for i, want := range []string{"amd64", "arm64"} {
		var run config
		var image manifest
		if err := json.Unmarshal([]byte(files[blobPath(parts.Manifests[i].Digest)].PAXRecords["body"]), &image); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(files[blobPath(image.Config.Digest)].PAXRecords["body"]), &run); err != nil {
			t.Fatal(err)
		}
		if got := parts.Manifests[i].Platform; got == nil || got.Architecture != want || got.OS != "linux" || run.Architecture != want {
			t.Errorf("manifest %d is for %+v and its configuration for %s, want %s", i, got, run.Architecture, want)
		}
	}
	variants[1].Architecture = "amd64"
	if err := Write(io.Discard, variants...); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice for one architecture: %v", err)
	}
}
