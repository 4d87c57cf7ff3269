package antispoof

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func attachment(number int, mac byte, addresses ...string) *model.Attachment {
	a := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: fmt.Sprint(number), Interface: "eth0"},
		Device:        fmt.Sprintf("fl%d", number), MAC: model.MAC{5: mac},
	}
	for _, addr := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(addr))
	}
	return a
}

func sourcesOf(p *Plan) (lines []string) {
	for source := range p.Sources.All() {
		lines = append(lines, source.String())
	}
	slices.Sort(lines)
	return lines
}

func TestCompute(t *testing.T) {
	var snapshot model.Snapshot
	for _, a := range []*model.Attachment{
		attachment(1, 1, "10.0.0.1"), attachment(2, 2, "10.0.0.2", "fd00::2"), attachment(3, 0, "10.0.0.3"),
	} {
		snapshot.Attachments = snapshot.Attachments.With(a.AttachmentKey, a)
	}
	want := []string{
		"fl1 00:00:00:00:00:01 10.0.0.1",
		"fl2 00:00:00:00:00:02 10.0.0.2", "fl2 00:00:00:00:00:02 fd00::2", "fl2 00:00:00:00:00:02 neighbour discovery",
	}
	if got := sourcesOf(Compute(nil, &snapshot)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAnyOrder: whatever came before, a plan equals one made from nothing.
func TestAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var snapshot model.Snapshot
	var plan *Plan
	for range 300 {
		number := random.IntN(5)
		a := attachment(number, byte(random.IntN(3)), fmt.Sprintf("10.0.0.%d", random.IntN(9)), fmt.Sprintf("fd00::%d", random.IntN(9)))
		next := snapshot
		next.Attachments = next.Attachments.With(a.AttachmentKey, a)
		if random.IntN(3) == 0 {
			next.Attachments = next.Attachments.Without(a.AttachmentKey)
		}
		snapshot = next
		plan = Compute(plan, &snapshot)
		if got, want := sourcesOf(plan), sourcesOf(Compute(nil, &snapshot)); !slices.Equal(got, want) {
			t.Fatalf("got %q, from nothing %q", got, want)
		}
	}
}
