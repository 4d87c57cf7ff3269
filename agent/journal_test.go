package agent

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// twoRecords are of a pod that has all that a record can have, and its end.
func twoRecords() []ipam.Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	key := keyOf("c")
	a := model.Attachment{
		AttachmentKey: key, Pod: model.PodKey{Namespace: "default", Name: "web"}, Device: deviceName(key), MAC: model.MAC{2, 0, 0, 0, 0, 1},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		HostPorts: []model.HostPort{
			{Protocol: model.UDP, HostIP: netip.MustParseAddr("192.0.2.1"), Port: 53, PodPort: 5353}, {Protocol: model.TCP, Port: 80, PodPort: 8080},
		},
	}
	gone := model.Attachment{AttachmentKey: key, Device: a.Device, Addresses: a.Addresses}
	return []ipam.Record{{Attachment: a, At: at}, {Attachment: gone, Released: true, At: at.Add(time.Second)}}
}

func journalText(records ...ipam.Record) []byte {
	text := []byte(journalHeader + "\n")
	for _, r := range records {
		text = append(text, encodeRecord(r)...)
	}
	return text
}

func TestJournalRoundTrip(t *testing.T) {
	records := twoRecords()
	records[0].Attachment.UID = model.UIDOf("0b9a3c1e-7f64-4c8e-9d0c-000000000001")
	read, damaged := decodeJournal(journalText(records...))
	if !reflect.DeepEqual(read, records) || damaged != nil {
		t.Errorf("got %+v, %v", read, damaged)
	}
}

// The journal of an older and of a newer agent: what is not known is passed
// over. The text is what version 1 wrote; it must be understood for ever.
func TestJournalOfOtherVersions(t *testing.T) {
	lines := []string{
		`{"kind":"allocated","containerID":"c","interface":"eth0","addresses":["10.0.0.1"],"at":"2026-01-02T03:04:05Z"}`,
		`{"kind":"moved","addresses":7}`,
		`{"kind":"released","containerID":"c","interface":"eth0","addresses":["10.0.0.1"],"at":"2026-01-02T03:04:06Z","why":{"gc":true}}`,
	}
	text := "fairlead-journal 2\n"
	for _, line := range lines {
		text += fmt.Sprintf("%08x %s\n", checksum([]byte(line)), line)
	}
	read, damaged := decodeJournal([]byte(text))
	if len(read) != 2 || read[0].Attachment.Addresses[0].String() != "10.0.0.1" || !read[1].Released || damaged != nil {
		t.Errorf("got %+v, %v", read, damaged)
	}
	if first := strings.Fields(text)[2]; first != "022a1ec6" {
		t.Errorf("the first checksum is %s", first)
	}
}

// A journal that ends anywhere, or has any byte changed: what is whole is read,
// what is not is named, and nothing is made up.
func TestDamagedJournals(t *testing.T) {
	records := twoRecords()
	text := journalText(records[0], records[1], records[0])
	ends := []int{len(journalHeader) + 1} // of lines
	for _, r := range []int{0, 1, 0} {
		ends = append(ends, ends[len(ends)-1]+len(encodeRecord(records[r])))
	}
	for cut := range text {
		read, damaged := decodeJournal(text[:cut])
		whole, open := 0, false
		for i, end := range ends {
			start := 0
			if i > 0 {
				start = ends[i-1]
			}
			switch {
			case cut >= end-1 && i > 0: // the end of the line may be missing
				whole++
			case cut > start && cut < end && i > 0, i == 0 && cut > 0 && cut < end-2:
				open = true
			}
		}
		if len(read) != whole || open != (len(damaged) == 1) {
			t.Fatalf("cut at %d: %d records, not %d, and damaged %v", cut, len(read), whole, damaged)
		}
	}
	for at := len(journalHeader) + 1; at < len(text); at++ {
		broken := bytes.Clone(text)
		broken[at] ^= 0x11
		read, damaged := decodeJournal(broken)
		if len(damaged) == 0 || len(read) < 1 {
			t.Fatalf("byte %d: %d records, damaged %v", at, len(read), damaged)
		}
		for _, r := range read {
			if !reflect.DeepEqual(r, records[0]) && !reflect.DeepEqual(r, records[1]) {
				t.Fatalf("byte %d: %+v", at, r)
			}
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(journalText(twoRecords()...))
	f.Add([]byte("fairlead-journal 1\n00000000 {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, damaged := decodeJournal(text)
		if len(records)+len(damaged) > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d records and %d damaged lines", len(records), len(damaged))
		}
		again, _ := decodeJournal(journalText(records...))
		if len(again) != len(records) {
			t.Errorf("%d records are written, %d read", len(records), len(again))
		}
		var a ipam.Allocator
		for _, r := range records {
			a.Restore(r, time.Now())
		}
	})
}

// A journal that cannot be written is told of, and whole again when it can. It
// does not grow for ever.
func TestJournalRecovers(t *testing.T) {
	var a ipam.Allocator
	var said []error
	dir := filepath.Join(t.TempDir(), "state")
	j := &journal{
		path:    filepath.Join(dir, "journal"),
		records: func() []ipam.Record { return a.Records(time.Now()) },
		failing: func(err error) { said = append(said, err) },
	}
	a.Journal = j
	a.SetRanges([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")})
	add := func(name string) {
		t.Helper()
		if _, err := a.Allocate(model.Attachment{AttachmentKey: keyOf(name)}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	add("one")
	add("two")
	if len(said) != 2 || said[0] == nil {
		t.Fatalf("without a directory it said %v", said)
	}
	must(t, os.Mkdir(dir, 0o700))
	add("three")
	if len(said) != 3 || said[2] != nil {
		t.Fatalf("with the directory it said %v", said)
	}
	for n := range 10 * spare {
		add(fmt.Sprint("p", n))
		a.Release(keyOf(fmt.Sprint("p", n)), time.Now().Add(-ipam.Remembered))
	}
	text, err := os.ReadFile(j.path)
	must(t, err)
	if lines := bytes.Count(text, []byte("\n")); lines > 2*spare {
		t.Errorf("it has %d lines", lines)
	}
	var restored ipam.Allocator
	records, damaged := decodeJournal(text)
	for _, r := range records {
		restored.Restore(r, time.Now())
	}
	if len(damaged) > 0 || restored.Held(keyOf("one")) == nil || restored.Held(keyOf("three")) == nil {
		t.Errorf("after that %v is damaged, and %v held", damaged, restored.Held(keyOf("one")))
	}
	j.file.Close() // as on a disk that is full
	add("four")
	if text, _ := os.ReadFile(j.path); !strings.Contains(string(text), `"four"`) {
		t.Error("what failed to be appended is not written")
	}
}
