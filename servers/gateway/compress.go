package gateway

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/klauspost/compress/zstd"
)

// Compression says which answers are compressed, by gzip or zstd, for clients that say
// they can read it: those with status 200, 403 or 404 of some types, unless the backend
// has compressed them or forbids it (Cache-Control: no-transform). A strong ETag
// becomes a weak one, and Vary says that there are several.
type Compression struct {
	Gzip  bool     // for clients that ask for it, or for anything
	Zstd  bool     // for those that name it, unless they would rather have gzip
	Min   int64    // bytes; shorter answers stay. Answers of unknown length do not.
	Types []string // such as text/css, in lower case
}

// UsualCompression is that of ingress-nginx.
func UsualCompression() *Compression {
	return &Compression{Gzip: true, Min: 256, Types: []string{
		"application/atom+xml", "application/javascript", "application/json", "application/rss+xml", "application/vnd.ms-fontobject", "application/x-font-ttf",
		"application/x-javascript", "application/x-web-app-manifest+json", "application/xhtml+xml", "application/xml", "font/opentype", "image/svg+xml",
		"image/x-icon", "text/css", "text/html", "text/javascript", "text/plain", "text/x-component",
	}}
}

// maxCompressing bounds the answers that are compressed at once: each needs about
// 800 KB by gzip, and 1.5 MB by zstd. Others stay as they are.
const maxCompressing = 64

// squeeze is how an answer is compressed.
type squeeze uint8

const (
	asItIs  squeeze = iota
	couldBe         // and is not for this client: Vary says so
	byGzip
	byZstd
)

// is tells whether it is compressed at all.
func (z squeeze) is() bool { return z >= byGzip }

// squeezes decides about an answer. Who gets one that is compressed calls unsqueezed
// once.
func (c *client) squeezes(r *http1.Response) squeeze {
	if c.compress == nil || !c.compress.means(r) {
		return asItIs
	}
	coding, _ := c.request.Get("accept-encoding")
	z := c.compress.by(coding)
	if string(c.request.Method) == http.MethodHead || c.request.Minor == 0 || !z.is() {
		return couldBe
	}
	if c.server.squeezing.Add(1) > maxCompressing {
		c.server.squeezing.Add(-1)
		return couldBe
	}
	return z
}

// by is how a client wants answers that it accepts in some codings.
func (z *Compression) by(accepted []byte) squeeze {
	gzip, zstd := 0.0, 0.0
	if z.Gzip {
		gzip = weight(accepted, "gzip", true)
	}
	if z.Zstd {
		zstd = weight(accepted, "zstd", false)
	}
	switch {
	case zstd > 0 && zstd >= gzip:
		return byZstd
	case gzip > 0:
		return byGzip
	}
	return couldBe
}

func (c *client) unsqueezed() { c.server.squeezing.Add(-1) }

// means tells whether an answer is one that may be compressed.
func (z *Compression) means(r *http1.Response) bool {
	if r.Status != http.StatusOK && r.Status != http.StatusForbidden && r.Status != http.StatusNotFound || r.Length >= 0 && r.Length < z.Min {
		return false
	}
	if _, coded := r.Get("content-encoding"); coded {
		return false
	}
	if control, ok := r.Get("cache-control"); ok && bytes.Contains(bytes.ToLower(control), []byte("no-transform")) {
		return false
	}
	kind, _ := r.Get("content-type")
	kind, _, _ = bytes.Cut(kind, []byte{';'})
	kind = bytes.TrimSpace(kind)
	for _, known := range z.Types {
		if len(known) == len(kind) && strings.EqualFold(known, text(kind)) {
			return true
		}
	}
	return false
}

// weight tells how much a client wants a coding, by what it accepts (RFC 9110, section
// 12.5.3): named, or by * if that counts. 0: not at all.
func weight(accepted []byte, coding string, any bool) float64 {
	others := 0.0
	for element := range bytes.SplitSeq(accepted, []byte{','}) {
		name, parameter, _ := bytes.Cut(element, []byte{';'})
		name = bytes.TrimSpace(name)
		wanted := 1.0
		if q, ok := bytes.CutPrefix(bytes.ToLower(bytes.TrimSpace(parameter)), []byte("q=")); ok {
			n, err := strconv.ParseFloat(string(q), 64)
			if wanted = n; err != nil || !(n > 0 && n <= 1) {
				wanted = 0
			}
		}
		switch {
		case strings.EqualFold(text(name), coding):
			return wanted
		case any && string(name) == "*":
			others = wanted
		}
	}
	return others
}

// dropped tells whether a field of an answer says what is true no more once it is
// compressed.
func dropped(f *http1.Field, name []byte) bool {
	switch {
	case f.Known == http1.ContentLength:
		return true
	case len(name) < len("digest"):
		return false
	}
	for _, other := range [...]string{"accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"} {
		if len(other) == len(name) && strings.EqualFold(other, text(name)) {
			return true
		}
	}
	return false
}

// appendSqueezed appends the fields that say what became of an answer.
func appendSqueezed(b []byte, z squeeze) []byte {
	switch z {
	case byGzip:
		return append(b, "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"...)
	case byZstd:
		return append(b, "Content-Encoding: zstd\r\nVary: Accept-Encoding\r\n"...)
	case couldBe:
		return append(b, "Vary: Accept-Encoding\r\n"...)
	}
	return b
}

// compressor is one of a coding.
type compressor interface {
	io.WriteCloser
	Flush() error
	Reset(to io.Writer)
}

// zstdWindow is how far back zstd looks, in bytes. Clients need as much memory, and
// need not have more than 8 MB (RFC 9659).
const zstdWindow = 256 << 10

// compressors are those that nobody uses.
var compressors = map[squeeze]*sync.Pool{
	byGzip: {New: func() any {
		z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level is one
		return z
	}},
	byZstd: {New: func() any { // the options are some
		z, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
		return z
	}},
}

// chunked writes what it is given to a client, in chunks, after a head.
type chunked struct {
	client *client
	b      []byte
	err    error
}

func (w *chunked) Write(piece []byte) (int, error) {
	for rest := piece; len(rest) > 0 && w.err == nil; {
		n := min(len(rest), cap(w.b)-len(w.b)-http1.ChunkRoom)
		if n <= 0 {
			w.flush()
			continue
		}
		w.b = http1.AppendChunk(w.b, rest[:n])
		rest = rest[n:]
	}
	return len(piece), w.err
}

func (w *chunked) flush() {
	if len(w.b) > 0 && w.err == nil {
		w.err = w.client.write(w.b)
		w.b = w.b[:0]
	}
}

// relaySqueezed passes a body on, compressed, after a head, which is in a buffer that it
// gives back. What comes of one whose
// length is not known is passed on as it comes.
func (c *client) relaySqueezed(u *upstream, out *buffer, head []byte, length int64, by squeeze) *side {
	defer out.free()
	to := &chunked{client: c, b: head}
	z := compressors[by].Get().(compressor)
	defer func() {
		z.Reset(io.Discard) // it would keep the client in memory
		compressors[by].Put(z)
	}()
	z.Reset(to)
	if length < 0 {
		to.flush() // it may be long until something comes
	}
	from := body{u: u, left: length}
	for {
		piece, err := from.next()
		if len(piece) > 0 {
			_, _ = z.Write(piece) // its error is that of to
			if length < 0 {
				_ = z.Flush()
				to.flush()
			}
		}
		switch {
		case to.err != nil:
			return &side{err: to.err}
		case errors.Is(err, io.EOF):
			_ = z.Close()
			to.b = append(to.b, "0\r\n\r\n"...) // there is room for it in ChunkRoom
			to.flush()
			if to.err != nil {
				return &side{err: to.err}
			}
			return nil
		case err != nil:
			return &side{err: err, reading: true}
		}
	}
}

// body reads that of an answer, without the frames of chunks.
type body struct {
	u      *upstream
	left   int64 // bytes, http1.Chunked or http1.UntilClose
	chunks http1.Chunks
	ended  bool
}

// next returns a piece, which lasts until the next one, or io.EOF with the last one.
func (r *body) next() ([]byte, error) {
	for {
		if r.ended || r.left == 0 {
			return nil, io.EOF
		}
		in := r.u.in
		if len(in.bytes()) == 0 {
			in.from, in.to = 0, 0
			n, err := r.u.Read(in.b)
			if errors.Is(err, io.EOF) && r.left == http1.UntilClose {
				r.ended = true
				return nil, io.EOF
			}
			if err != nil {
				return nil, err
			}
			in.to = n
		}
		piece := in.bytes()
		switch {
		case r.left == http1.Chunked:
			data, used, refused := r.chunks.Decode(piece)
			if refused != nil {
				return nil, refused
			}
			piece, r.ended = piece[:data], r.chunks.Done()
			in.from += used
		case r.left > 0:
			piece = piece[:min(int64(len(piece)), r.left)]
			in.from += len(piece)
			r.left -= int64(len(piece))
		default:
			in.from = in.to
		}
		if len(piece) > 0 {
			return piece, nil
		}
	}
}
