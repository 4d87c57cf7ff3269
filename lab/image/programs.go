package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Programs is a layer of programs of this host, each at its own path, with the
// dynamic loader and the shared libraries that they need. What they would open
// only while they run (configuration, plugins) is not in it.
func Programs(paths ...string) (Layer, error) {
	c := closure{has: map[string]bool{}}
	for _, path := range paths {
		if err := c.add(path, path); err != nil {
			return nil, fmt.Errorf("taking %s with its libraries: %w", path, err)
		}
	}
	return c.layer, nil
}

// closure grows by files that those in it need.
type closure struct {
	layer Layer
	has   map[string]bool // paths inside the image
}

// add takes the file at source to path, and all that it needs.
func (c *closure) add(path, source string) error {
	if c.has[path] {
		return nil
	}
	c.has[path] = true
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	c.layer = append(c.layer, File{Path: path, Source: source})
	file, err := elf.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	if loader := interpreter(file); loader != "" {
		if err := c.add(loader, loader); err != nil {
			return err
		}
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, library := range libraries {
		found, err := findLibrary(library, file)
		if err != nil {
			return err
		}
		// All go where the loader looks without a cache.
		if err := c.add("/usr/lib/"+library, found); err != nil {
			return err
		}
	}
	return nil
}

// interpreter is the path of the dynamic loader that a program asks for.
func interpreter(file *elf.File) string {
	for _, section := range file.Progs {
		if section.Type != elf.PT_INTERP {
			continue
		}
		content := make([]byte, section.Filesz)
		if _, err := section.ReadAt(content, 0); err == nil {
			return strings.TrimRight(string(content), "\x00")
		}
	}
	return ""
}

// findLibrary looks where Debian has libraries of the kind that file is of, and
// in the directories that file itself names.
func findLibrary(name string, file *elf.File) (string, error) {
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[file.Machine]
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		if named, err := file.DynString(tag); err == nil {
			for _, list := range named {
				dirs = append(dirs, strings.Split(list, ":")...)
			}
		}
	}
	dirs = slices.Concat(dirs, []string{"/usr/lib/" + triplet, "/lib/" + triplet, "/usr/lib", "/lib", "/usr/local/lib"})
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("library %s is not in %s", name, strings.Join(dirs, ", "))
}
