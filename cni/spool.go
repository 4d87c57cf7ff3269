package cni

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
)

// A DEL that no agent takes is put down as a file, its request, in a directory
// beside the agent's socket, and so succeeds: the agent carries it out when it
// is there again. A reboot, which ends the directory above, ends the pods as well, and
// Fairlead that is uninstalled leaves nothing to be done: without it, nothing is put down.

// maxSpooled is how many DELs may wait: all pods of a node come and gone a few
// times.
const maxSpooled = 4096

// maxSpooledSize in bytes is more than a DEL without its configuration has.
const maxSpooledSize = 4 << 10

// SpoolDir is where DELs wait for the agent of a socket. Names that begin with a
// dot are being written.
func SpoolDir(socket string) string { return filepath.Join(filepath.Dir(socket), "del") }

// SpoolName is the file's name in it. The hash is not a cryptographic one, which
// would make the plugin start later: runtimes choose container IDs.
func SpoolName(containerID, ifname string) string {
	hash := fnv.New128a()
	fmt.Fprint(hash, containerID, "/", ifname)
	return hex.EncodeToString(hash.Sum(nil))
}

func spool(socket string, request *Request) error {
	dir := SpoolDir(socket)
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("put down the DEL: %w", err)
	}
	waiting, err := os.ReadDir(dir)
	if err == nil && len(waiting) >= maxSpooled {
		err = fmt.Errorf("%d wait in %s already", len(waiting), dir)
	}
	if err != nil {
		return fmt.Errorf("put down the DEL: %w", err)
	}
	message, err := json.Marshal(&Request{
		Version: Version, Command: "DEL", ContainerID: request.ContainerID, Interface: request.Interface,
	})
	if err != nil {
		return fmt.Errorf("put down the DEL: %w", err)
	}
	name := SpoolName(request.ContainerID, request.Interface)
	temporary := filepath.Join(dir, fmt.Sprintf(".%s-%d", name, os.Getpid()))
	if err = os.WriteFile(temporary, message, 0o600); err == nil {
		err = os.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(temporary)
		return fmt.Errorf("put down the DEL: %w", err)
	}
	return nil
}

// ReadSpooled reads a DEL that waits. The error says what is wrong with the
// file; one that is not there any more is fs.ErrNotExist.
func ReadSpooled(path string) (*Request, error) {
	stat, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("read the DEL that waits: %w", err)
	}
	if !stat.Mode().IsRegular() || stat.Size() > maxSpooledSize {
		return nil, fmt.Errorf("read the DEL that waits: %s is no file of at most %d bytes", path, maxSpooledSize)
	}
	message, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the DEL that waits: %w", err)
	}
	request := &Request{}
	if err := json.Unmarshal(message, request); err != nil {
		return nil, fmt.Errorf("read the DEL that waits: %s: %w", path, err)
	}
	if request.Command != "DEL" || filepath.Base(path) != SpoolName(request.ContainerID, request.Interface) {
		return nil, fmt.Errorf("read the DEL that waits: %s is not what its name says", path)
	}
	return request, nil
}
