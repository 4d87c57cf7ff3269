package nftables

import (
	"bytes"
	"os"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// TestElementsMessage: elements are encoded as the library encodes them.
func TestElementsMessage(t *testing.T) {
	plain := &nft.Set{Name: "some", ID: 7, Table: ourTable(), KeyType: nft.TypeInetService}
	timed := &nft.Set{Name: "timed4", ID: 1 << 20, Table: ourTable(), HasTimeout: true, IsMap: true}
	for name, test := range map[string]struct {
		set      *nft.Set
		elements []nft.SetElement
	}{
		"none":     {plain, nil},
		"keys":     {plain, []nft.SetElement{{Key: []byte{1, 2, 0, 0}}, {Key: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}},
		"unpadded": {plain, []nft.SetElement{{Key: []byte{1, 2}}, {Key: []byte{3}, Val: []byte{4, 5, 6}}}},
		"interval": {plain, []nft.SetElement{{Key: []byte{1, 2, 3, 4}}, {Key: []byte{1, 2, 3, 9}, IntervalEnd: true}}},
		"ranges":   {plain, []nft.SetElement{{Key: []byte{1, 2, 3, 4}, KeyEnd: []byte{1, 2, 3, 9}}}},
		"untimed":  {plain, []nft.SetElement{{Key: []byte{1, 2, 3, 4}, Timeout: time.Second}}},
		"timeout":  {timed, []nft.SetElement{{Key: []byte{1, 2, 3, 4}, Val: []byte{9, 9, 9, 9}, Timeout: 90 * time.Second}}},
	} {
		t.Run(name, func(t *testing.T) {
			var want []byte
			conn, err := nft.New(nft.WithTestDial(func(messages []netlink.Message) ([]netlink.Message, error) {
				want = messages[1].Data      // the first begins the batch
				return nil, os.ErrPermission // there are no answers
			}))
			must(t, err)
			must(t, conn.SetAddElements(test.set, test.elements))
			_ = conn.Flush()
			var part pieces
			for i := range test.elements {
				part = append(part, piece{encoded: test.elements[i : i+1]})
			}
			if got := elementsMessage(test.set, part); !bytes.Equal(got, want) {
				t.Errorf("got\n%x\nwant\n%x", got, want)
			}
		})
	}
}
