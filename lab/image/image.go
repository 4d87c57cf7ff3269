// Package image writes container images, as an OCI image layout in a tar file,
// from lists of files. It needs no registry, no base image and no daemon, and
// knows nothing of labs or Kubernetes. The same input gives the same bytes.
//
// Its functions keep no state and may be called concurrently.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// File is one file, link or directory of an image.
type File struct {
	Path    string      // absolute, inside the image
	Source  string      // host path of the content
	Content []byte      // the content, if Source is empty
	Link    string      // target of a symbolic link, instead of a content
	Mode    fs.FileMode // permissions; 0 means 0755, with fs.ModeDir a directory
}

// Layer is a set of files. Images that share a layer store it once.
type Layer []File

// Image describes one image, for one architecture.
type Image struct {
	Name         string // full reference, such as registry.k8s.io/pause:3.10.2
	Layers       []Layer
	Entrypoint   []string
	Command      []string
	Env          []string
	WorkingDir   string
	User         string
	Architecture string // GOARCH of the programs inside
}

// Media types and annotations of the OCI image specification, and the
// annotation by which containerd names what it imports.
const (
	indexType     = "application/vnd.oci.image.index.v1+json"
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	configType    = "application/vnd.oci.image.config.v1+json"
	layerType     = "application/vnd.oci.image.layer.v1.tar"
	refAnnotation = "org.opencontainers.image.ref.name"
	nameAnnotaton = "io.containerd.image.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type config struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// Write writes images as one archive. Images of one name that follow each other
// are one image for several architectures, of which a runtime takes its own.
func Write(to io.Writer, images ...Image) error {
	a := &archive{tar: tar.NewWriter(to), written: map[string]bool{}}
	if err := a.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	top := index{SchemaVersion: 2, MediaType: indexType}
	for len(images) > 0 {
		name, count := images[0].Name, 1
		for count < len(images) && images[count].Name == name {
			count++
		}
		entry, err := a.images(images[:count])
		if err != nil {
			return fmt.Errorf("writing image %s: %w", name, err)
		}
		entry.Annotations = map[string]string{nameAnnotaton: name, refAnnotation: tag(name)}
		top.Manifests = append(top.Manifests, entry)
		images = images[count:]
	}
	encoded, err := json.Marshal(top)
	if err != nil {
		return fmt.Errorf("encoding the index of images: %w", err)
	}
	if err := a.add("index.json", encoded); err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return fmt.Errorf("ending the archive of images: %w", err)
	}
	return nil
}

// archive is the tar file of an OCI layout in the making.
type archive struct {
	tar     *tar.Writer
	written map[string]bool // digests of blobs that are in it
}

// images writes an image for one architecture or, with an index, for several.
func (a *archive) images(variants []Image) (descriptor, error) {
	parts := index{SchemaVersion: 2, MediaType: indexType}
	for _, variant := range variants {
		if slices.ContainsFunc(parts.Manifests, func(d descriptor) bool { return d.Platform.Architecture == variant.Architecture }) {
			return descriptor{}, fmt.Errorf("it is there twice for architecture %q", variant.Architecture)
		}
		entry, err := a.image(variant)
		if err != nil {
			return descriptor{}, err
		}
		parts.Manifests = append(parts.Manifests, entry)
	}
	if len(variants) == 1 {
		return parts.Manifests[0], nil
	}
	return a.json(indexType, parts)
}

func (a *archive) image(image Image) (descriptor, error) {
	parts := manifest{SchemaVersion: 2, MediaType: manifestType, Layers: []descriptor{}}
	run := config{
		Architecture: image.Architecture, OS: "linux",
		Config: runConfig{
			User: image.User, Env: image.Env, Entrypoint: image.Entrypoint, Cmd: image.Command, WorkingDir: image.WorkingDir,
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{}},
	}
	for _, layer := range image.Layers {
		blob, err := a.layer(layer)
		if err != nil {
			return descriptor{}, err
		}
		parts.Layers = append(parts.Layers, blob)
		run.RootFS.DiffIDs = append(run.RootFS.DiffIDs, blob.Digest)
	}
	var err error
	if parts.Config, err = a.json(configType, run); err != nil {
		return descriptor{}, err
	}
	entry, err := a.json(manifestType, parts)
	if err != nil {
		return descriptor{}, err
	}
	entry.Platform = &platform{Architecture: image.Architecture, OS: "linux"}
	return entry, nil
}

// tag is what follows the name of the repository.
func tag(name string) string {
	if _, tag, ok := strings.Cut(path.Base(name), ":"); ok {
		return tag
	}
	return "latest"
}

// layer writes a layer in two passes, since the name of a blob is the digest
// of its content.
func (a *archive) layer(layer Layer) (descriptor, error) {
	sum := sha256.New()
	size, err := layer.write(sum)
	if err != nil {
		return descriptor{}, err
	}
	blob := descriptor{MediaType: layerType, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size}
	if a.written[blob.Digest] {
		return blob, nil
	}
	a.written[blob.Digest] = true
	if err := a.header(blobPath(blob.Digest), size); err != nil {
		return descriptor{}, err
	}
	if _, err := layer.write(a.tar); err != nil {
		return descriptor{}, err
	}
	return blob, nil
}

func (a *archive) json(mediaType string, value any) (descriptor, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, fmt.Errorf("encoding %s: %w", mediaType, err)
	}
	sum := sha256.Sum256(encoded)
	blob := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(encoded))}
	if a.written[blob.Digest] {
		return blob, nil
	}
	a.written[blob.Digest] = true
	return blob, a.add(blobPath(blob.Digest), encoded)
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func (a *archive) add(name string, content []byte) error {
	if err := a.header(name, int64(len(content))); err != nil {
		return err
	}
	if _, err := a.tar.Write(content); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

func (a *archive) header(name string, size int64) error {
	err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatUSTAR})
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// write writes the layer as a tar and returns its length in bytes. Parent
// directories that are not listed are made.
func (l Layer) write(to io.Writer) (int64, error) {
	files := slices.Clone(l)
	known := map[string]bool{"/": true}
	for _, file := range l {
		known[path.Clean(file.Path)] = true
	}
	for _, file := range l {
		for dir := path.Dir(path.Clean(file.Path)); !known[dir]; dir = path.Dir(dir) {
			known[dir] = true
			files = append(files, File{Path: dir, Mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	counter := &counter{to: to}
	out := tar.NewWriter(counter)
	for _, file := range files {
		if err := file.write(out); err != nil {
			return 0, fmt.Errorf("adding %s: %w", file.Path, err)
		}
	}
	if err := out.Close(); err != nil {
		return 0, fmt.Errorf("ending a layer: %w", err)
	}
	return counter.bytes, nil
}

func (f File) write(to *tar.Writer) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(f.Path), "/"),
		Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	if f.Mode.Perm() == 0 {
		header.Mode = 0o755
	}
	if f.Mode&fs.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	var content io.Reader = bytes.NewReader(f.Content)
	header.Size = int64(len(f.Content))
	switch {
	case f.Mode.IsDir():
		header.Typeflag, header.Name, header.Size = tar.TypeDir, header.Name+"/", 0
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, f.Link, 0
	case f.Source != "":
		file, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer file.Close()
		stat, err := file.Stat()
		if err != nil {
			return err
		}
		content, header.Size = file, stat.Size()
	}
	if err := to.WriteHeader(header); err != nil {
		return err
	}
	if header.Size == 0 {
		return nil
	}
	_, err := io.Copy(to, content)
	return err
}

// counter counts the bytes that pass.
type counter struct {
	to    io.Writer
	bytes int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.bytes += int64(n)
	return n, err
}
