package http2

import "sync"

// pieces are bytes that came and were not read yet.
type pieces struct {
	first, last *piece
	size        int
}

type piece struct {
	from, to int
	next     *piece
	b        [maxFrame]byte
}

var freePieces = sync.Pool{New: func() any { return new(piece) }}

func (p *pieces) write(b []byte) {
	p.size += len(b)
	for len(b) > 0 {
		if p.last == nil || p.last.to == len(p.last.b) {
			more := freePieces.Get().(*piece)
			more.from, more.to, more.next = 0, 0, nil
			if p.last == nil {
				p.first = more
			} else {
				p.last.next = more
			}
			p.last = more
		}
		n := copy(p.last.b[p.last.to:], b)
		p.last.to += n
		b = b[n:]
	}
}

func (p *pieces) read(into []byte) (n int) {
	for p.first != nil && n < len(into) {
		part := p.first
		copied := copy(into[n:], part.b[part.from:part.to])
		n += copied
		if part.from += copied; part.from < part.to {
			break
		}
		if p.first = part.next; p.first == nil {
			p.last = nil
		}
		freePieces.Put(part)
	}
	p.size -= n
	return n
}

// drop forgets what there is, and tells how much it was.
func (p *pieces) drop() (n int) {
	n = p.size
	for p.first != nil {
		next := p.first.next
		freePieces.Put(p.first)
		p.first = next
	}
	*p = pieces{}
	return n
}
