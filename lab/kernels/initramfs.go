package kernels

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var initScript []byte

// What a guest needs to reach its root. Everything else it loads from there.
func bootModules() []string { return []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"} }

// initramfs is a kernel's first root: busybox, the modules for the real one,
// and a script that goes there with the environment given as shell text.
func (i Image) initramfs(environment string) ([]byte, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("reading a static busybox: %w", err)
	}
	base := filepath.Join(i.Dir, "lib/modules", i.Release)
	dependencies, err := os.ReadFile(filepath.Join(base, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("reading what modules need: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(base, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("reading what modules are built in: %w", err)
	}
	modules, err := loadOrder(string(dependencies), string(builtin), bootModules())
	if err != nil {
		return nil, err
	}
	files := []file{
		{name: "bin", mode: fs.ModeDir | 0o755},
		{name: "bin/busybox", mode: 0o755, body: busybox},
		{name: "init", mode: 0o755, body: initScript},
		{name: "environment", mode: 0o644, body: []byte(environment)},
		{name: "modules", mode: fs.ModeDir | 0o755},
	}
	var names strings.Builder
	for _, module := range modules {
		body, err := os.ReadFile(filepath.Join(base, module))
		if err != nil {
			return nil, fmt.Errorf("reading a module: %w", err)
		}
		files = append(files, file{name: "modules/" + path.Base(module), mode: 0o644, body: body})
		fmt.Fprintln(&names, path.Base(module))
	}
	files = append(files, file{name: "modules/order", mode: 0o644, body: []byte(names.String())})
	var archive bytes.Buffer
	err = writeCPIO(&archive, files)
	return archive.Bytes(), err
}

// loadOrder lists the files of modules and of all that they need, each after
// what it needs. It reads the contents of modules.dep and modules.builtin;
// what is built in needs no file.
func loadOrder(dependencies, builtin string, modules []string) ([]string, error) {
	files, needs := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(builtin) {
		files[moduleName(strings.TrimSpace(line))] = ""
	}
	for line := range strings.Lines(dependencies) {
		file, needed, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep has the line %q", line)
		}
		files[moduleName(file)], needs[file] = file, strings.Fields(needed)
	}
	var order []string
	done := map[string]bool{"": true}
	var add func(file string)
	add = func(file string) {
		if done[file] {
			return
		}
		done[file] = true
		for _, needed := range needs[file] {
			add(needed)
		}
		order = append(order, file)
	}
	for _, module := range modules {
		file, ok := files[moduleName(module)]
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", module)
		}
		add(file)
	}
	return order, nil
}

// moduleName is of a file: "kernel/fs/9p/9p.ko.xz" is "9p". A dash and an
// underscore are the same to the kernel.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// file is one of an archive, below directories that come before it.
type file struct {
	name string
	mode fs.FileMode // a directory or a regular file
	body []byte
}

// writeCPIO writes the archive that the kernel unpacks as its first root: cpio
// in its "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
func writeCPIO(w io.Writer, files []file) error {
	const directory, regular = 0o040000, 0o100000
	var archive bytes.Buffer
	pad := func() { archive.Write(make([]byte, -archive.Len()&3)) }
	for inode, f := range append(files, file{name: "TRAILER!!!"}) {
		mode := uint32(f.mode.Perm()) | regular
		if f.mode.IsDir() {
			mode = uint32(f.mode.Perm()) | directory
		}
		// Inode, mode, owner, group, links, time, size, device, special
		// device, length of the name with its end, checksum.
		fmt.Fprintf(&archive, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode, mode, 0, 0, 1, 0, len(f.body), 0, 0, 0, 0, len(f.name)+1, 0, f.name)
		pad()
		archive.Write(f.body)
		pad()
	}
	if _, err := archive.WriteTo(w); err != nil {
		return fmt.Errorf("writing the first root: %w", err)
	}
	return nil
}
