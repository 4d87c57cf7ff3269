package nftables

import (
	"fmt"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
)

// edits are removals and additions to one set.
type edits struct{ removals, puts run }

// run is pieces of one element each, whose memory is used again once they are
// sent.
type run struct {
	pieces
	elements []nft.SetElement
}

func (r *run) add(e nft.SetElement, aside func(error)) {
	if r.elements == nil {
		r.elements, r.pieces = make([]nft.SetElement, 0, 8), make(pieces, 0, 8)
	}
	r.elements = append(r.elements, e)
	at := len(r.elements) - 1
	r.pieces = append(r.pieces, piece{r.elements[at : at+1 : at+1], aside})
}

func (r *run) reset() { r.pieces, r.elements = r.pieces[:0], r.elements[:0] }

// edit adds removals and additions of one Service. They go into the batch when
// there are enough for a message, so that no more are in memory: no element of
// another set depends on them, and what is removed from a set goes first.
func (u *update) edit(of model.ServiceKey, removals, puts []element) {
	aside := func(err error) {
		if u.services.aside == nil {
			u.services.aside = map[model.ServiceKey]error{}
		}
		u.services.aside[of] = err
	}
	for _, e := range removals {
		at := e.set.ID - u.sets[0].ID
		u.edits[at].removals.add(nft.SetElement{Key: e.key, KeyEnd: e.end}, aside)
		if len(u.edits[at].removals.pieces) >= inPieces {
			u.send(int(at))
		}
	}
	for _, e := range puts {
		at := e.set.ID - u.sets[0].ID
		u.edits[at].puts.add(nft.SetElement{Key: e.key, KeyEnd: e.end, Val: e.value}, aside)
		if len(u.edits[at].puts.pieces) >= inPieces {
			u.send(int(at))
		}
	}
}

// send puts the edits of a set into the batch.
func (u *update) send(set int) {
	e := &u.edits[set]
	if u.err != nil {
		return
	}
	u.err = e.removals.send(u.batch, u.sets[set], (*nft.Conn).SetDeleteElements)
	if u.err == nil {
		u.err = e.puts.send(u.batch, u.sets[set], (*nft.Conn).SetAddElements)
	}
	if u.err != nil {
		u.err = fmt.Errorf("change map %s: %w", u.sets[set].Name, u.err)
	}
	e.removals.reset()
	e.puts.reset()
}
