package nftables

import (
	"errors"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// missingFeature tries, in a table that is removed in the same transaction,
// what our table is made of, and names the first feature that the kernel does
// not know. It is empty if that is not what was wrong.
func missingFeature() string {
	const name = "fairlead-probe"
	table := &nft.Table{Family: nft.TableFamilyINet, Name: name}
	set := &nft.Set{Table: table, ID: 1, Name: "probe", KeyType: nft.TypeIP6Addr, Interval: true}
	chain := natChain(table)
	features := []struct {
		name string
		add  func(*nft.Conn) error
	}{
		{"nftables tables of the family inet (Linux 3.14)", func(conn *nft.Conn) error {
			conn.AddTable(table)
			return nil
		}},
		{"interval sets in nftables (Linux 3.13)", func(conn *nft.Conn) error {
			return conn.AddSet(set, nil)
		}},
		{"NAT in tables of the family inet (Linux 5.2)", func(conn *nft.Conn) error {
			conn.AddChain(chain)
			return nil
		}},
		{"masquerade in tables of the family inet (Linux 5.2)", func(conn *nft.Conn) error {
			conn.AddRule(&nft.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{FullyRandom: true}}})
			return nil
		}},
	}
	for most := range features {
		conn, err := connect()
		if err != nil {
			return ""
		}
		for _, feature := range features[:most+1] {
			if err := feature.add(conn); err != nil {
				return ""
			}
		}
		conn.DelTable(table)
		if err := conn.Flush(); unknown(err) {
			return features[most].name
		}
	}
	return ""
}

// unknown tells whether the kernel does not know what it was asked for. It
// says ENOENT for types of chains and expressions that it lacks.
func unknown(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT)
}
