package http2

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestEncoder: what is written, the library reads, whatever the table's size
// becomes.
func TestEncoder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	names := []string{"Content-Type", "server", "Date", "set-cookie", "x-own", "Vary", "content-length", "X-Frame-Options", "www-authenticate", strings.Repeat("n", 200)}
	e := newEncoder()
	var got []string
	d := hpack.NewDecoder(tableSize, func(f hpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
	sizes := 0
	for i := range 5000 {
		if random.IntN(50) == 0 {
			size := random.IntN(tableSize + 1)
			e.resize(random.IntN(tableSize + 1))
			e.resize(size)
		}
		status := []int{200, 204, 206, 304, 400, 404, 500, 403, 599}[random.IntN(9)]
		b := e.status(e.begin(nil), status)
		want := []string{fmt.Sprintf(":status: %d", status)}
		for range random.IntN(6) {
			name, value := names[random.IntN(len(names))], strings.Repeat("v", random.IntN(3)*random.IntN(200))+fmt.Sprint(random.IntN(5))
			b = e.field(b, []byte(name), []byte(value))
			want = append(want, strings.ToLower(name)+": "+value)
		}
		got = got[:0]
		if _, err := d.Write(b); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("block %d: %q, not %q", i, got, want)
		}
		if sizes += len(b); e.used > e.most {
			t.Fatalf("the table has %d of %d bytes", e.used, e.most)
		}
	}
	b := e.field(nil, []byte("Server"), []byte("x"))
	if again := e.field(nil, []byte("server"), []byte("x")); len(again) != 1 || len(b) == 1 {
		t.Errorf("again: % x, after % x", again, b)
	}
}

// TestEncodingCostsNoMemory: fields that are in the table are found there.
func TestEncodingCostsNoMemory(t *testing.T) {
	e, b := newEncoder(), make([]byte, 0, 1000)
	round := func() {
		b = e.status(e.begin(b[:0]), 200)
		b = e.field(b, []byte("Content-Type"), []byte("text/html"))
		b = e.field(b, []byte("Content-Length"), []byte("1234"))
		b = e.field(b, []byte("X-Own"), []byte("1"))
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
