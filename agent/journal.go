package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// journal is the file of what the allocator did. Its first line has the version,
// each further one a record:
//
//	fairlead-journal 1
//	CHECKSUM {"kind":"allocated", …}
//
// The checksum is CRC-32C of what follows the space, in hexadecimal. A reader
// passes over kinds and fields that it does not know. Nothing is synced: the
// page cache outlives the agent, and what a power failure takes is void anyway,
// as are the pods.
//
// Its methods are called with the lock of the allocator held.
type journal struct {
	path    string
	records func() []ipam.Record // the fewest that say all
	failing func(error)          // told when it cannot be written, and nil when it can be again

	file      *os.File // nil while it cannot be written
	left      int      // records to append before it is rewritten
	isFailing bool
}

const journalHeader = "fairlead-journal 1"

func (c *Config) journalPath() string { return filepath.Join(c.StateDir, "addresses.journal") }

// spare is how many records may be appended to a journal, beside as many as it
// had, before it is rewritten.
const spare = 1000

// Append implements ipam.Journal.
func (j *journal) Append(r ipam.Record) {
	if j.file != nil && j.left > 0 {
		if _, err := j.file.Write(encodeRecord(r)); err == nil {
			j.left--
			return
		}
	}
	j.rewrite() // which has this record, too
}

// removed tells whether there is no file at its path any more: what is appended is lost
// then. Another one is that of another agent, which would take ours as removed in turn.
func (j *journal) removed() bool {
	if j.file == nil {
		return false
	}
	_, missing := os.Stat(j.path)
	return errors.Is(missing, os.ErrNotExist)
}

// rewrite replaces the journal by the fewest records, as it does after a failure
// as well: what was written then may be cut off.
func (j *journal) rewrite() {
	records := j.records()
	text := []byte(journalHeader + "\n")
	for _, r := range records {
		text = append(text, encodeRecord(r)...)
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	var err error
	j.left = len(records) + spare
	j.file, err = replaceJournal(j.path, text)
	if failing := err != nil; failing || j.isFailing {
		j.isFailing = failing
		j.failing(err)
	}
}

// replaceJournal returns the new file, to be appended to.
func replaceJournal(path string, text []byte) (*os.File, error) {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(text)
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, nil
}

// entry is a record in the file.
type entry struct {
	Kind        string          `json:"kind"`
	ContainerID string          `json:"containerID,omitempty"`
	Interface   string          `json:"interface,omitempty"`
	Namespace   string          `json:"namespace,omitempty"` // of the pod
	Pod         string          `json:"pod,omitempty"`
	UID         string          `json:"uid,omitempty"` // of the pod
	Addresses   []netip.Addr    `json:"addresses"`
	MAC         model.MAC       `json:"mac,omitzero"`
	HostPorts   []hostPortEntry `json:"hostPorts,omitempty"`
	At          time.Time       `json:"at"`
}

type hostPortEntry struct {
	Protocol model.Protocol `json:"protocol"`
	HostIP   netip.Addr     `json:"hostIP,omitzero"`
	HostPort uint16         `json:"hostPort"`
	PodPort  uint16         `json:"podPort"`
}

// The kinds of entries.
const (
	kindAllocated = "allocated"
	kindReleased  = "released"
)

func encodeRecord(r ipam.Record) []byte {
	a := &r.Attachment
	e := entry{
		Kind: kindAllocated, ContainerID: a.ContainerID, Interface: a.Interface,
		Namespace: a.Pod.Namespace, Pod: a.Pod.Name, UID: a.UID.String(), Addresses: a.Addresses, MAC: a.MAC, At: r.At.UTC(),
	}
	if r.Released {
		e.Kind = kindReleased
	}
	for _, port := range a.HostPorts {
		e.HostPorts = append(e.HostPorts, hostPortEntry{port.Protocol, port.HostIP, port.Port, port.PodPort})
	}
	text, err := json.Marshal(e)
	if err != nil { // only of values that no record has
		panic(fmt.Sprintf("encode %+v: %v", e, err))
	}
	return fmt.Appendf(nil, "%08x %s\n", checksum(text), text)
}

func checksum(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }

// decodeRecord tells whether a line is whole. One of an unknown kind is, and has
// no record.
func decodeRecord(line []byte) (r *ipam.Record, whole bool) {
	sum, text, _ := bytes.Cut(line, []byte(" "))
	if string(sum) != fmt.Sprintf("%08x", checksum(text)) {
		return nil, false
	}
	var kind struct{ Kind string }
	var e entry
	if json.Unmarshal(text, &kind) != nil {
		return nil, false
	}
	if kind.Kind != kindAllocated && kind.Kind != kindReleased {
		return nil, true
	}
	if json.Unmarshal(text, &e) != nil {
		return nil, false
	}
	r = &ipam.Record{Released: e.Kind == kindReleased, At: e.At, Attachment: model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: e.ContainerID, Interface: e.Interface},
		Pod:           model.PodKey{Namespace: e.Namespace, Name: e.Pod},
		UID:           model.UIDOf(e.UID),
		Addresses:     e.Addresses, MAC: e.MAC,
	}}
	r.Attachment.Device = deviceName(r.Attachment.AttachmentKey)
	for _, port := range e.HostPorts {
		r.Attachment.HostPorts = append(r.Attachment.HostPorts, model.HostPort{
			Protocol: port.Protocol, HostIP: port.HostIP, Port: port.HostPort, PodPort: port.PodPort,
		})
	}
	return r, true
}

// decodeJournal reads what is whole. damaged has the numbers of the lines that
// are not, from 1.
func decodeJournal(text []byte) (records []ipam.Record, damaged []int) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if number == 1 && strings.HasPrefix(string(line), "fairlead-journal ") {
			continue
		}
		r, whole := decodeRecord(line)
		if !whole {
			damaged = append(damaged, number)
		}
		if r != nil {
			records = append(records, *r)
		}
	}
	return records, damaged
}

// readJournal is decodeJournal of a file. One that is missing is empty.
func readJournal(path string) ([]ipam.Record, []int, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the journal of addresses: %w", err)
	}
	records, damaged := decodeJournal(text)
	return records, damaged, nil
}
