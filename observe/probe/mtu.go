package probe

import (
	"context"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Passes sends one packet of the MTU that the path should have, and another if
// it is lost, by a kind that has answered.
func (t Task) Passes(ctx context.Context, kind Kind) Result {
	return t.findMTU(ctx, kind, 2, false)
}

// FindMTU is Passes, and finds what does pass if that does not.
func (t Task) FindMTU(ctx context.Context, kind Kind) Result {
	return t.findMTU(ctx, kind, tries, true)
}

func (t Task) findMTU(ctx context.Context, kind Kind, tries int, search bool) Result {
	r := t.result(MTU)
	r.Planned = t.MTU
	conn, err := t.open(ctx, kind)
	if err != nil {
		r.Sent, r.Lost, r.Error = 1, 1, explain(err)
		return r
	}
	defer conn.Close()
	ask := func(sizes []int, tries int, gap time.Duration) *exchange {
		x := &exchange{conn: conn, sizes: sizes, tries: tries, gap: gap}
		x.run(ctx)
		r.Sent += x.sent
		return x
	}
	x := ask([]int{t.MTU}, tries, gap)
	r.Lost = r.Sent - len(x.answered)
	if r.Found = x.largest(); r.Found > 0 {
		r.OK = true
		return r
	}
	r.Error, r.From, r.Told = x.refusal.text, x.refusal.from, x.refusal.mtu > 0
	// What somebody says is not so before it was seen. A path may have more than
	// one narrow place.
	for told := x.refusal.mtu; told > 0; {
		x = ask([]int{told}, tries, gap)
		if r.Found = x.largest(); r.Found > 0 {
			r.OK = true
			return r
		}
		if x.refusal.mtu == 0 || x.refusal.mtu >= told {
			break
		}
		told = x.refusal.mtu
	}
	r.Told = false
	if search {
		r.Found = largest(smallest(model.FamilyOf(t.To)), t.MTU, func(sizes []int) int {
			return ask(sizes, 2, gap).largest()
		})
	}
	return r
}

// smallest is the MTU that every link has, in bytes: RFC 791 and RFC 8200
// section 5.
func smallest(family model.Family) int {
	if family == model.IPv6 {
		return 1280
	}
	return 68
}

// abreast is how many sizes are asked for at once.
const abreast = 15

// largest finds the greatest size that passes, from low to below high; 0 if none
// does. ask returns the greatest of some sizes that does. If packets are lost by
// chance, it may be too small.
func largest(low, high int, ask func(sizes []int) int) int {
	found := 0
	for low < high {
		var sizes []int
		step := max(1, (high-low+abreast-1)/abreast)
		for size := low; size < high; size += step {
			sizes = append(sizes, size)
		}
		passed := ask(sizes)
		if passed == 0 {
			return found
		}
		found, low, high = passed, passed+1, min(high, passed+step)
	}
	return found
}
