package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// resolvConf is what a node's resolv.conf says (resolv.conf(5)). Its search path
// and options are for resolvers, not for servers.
type resolvConf struct {
	servers []netip.AddrPort
	wrong   []string // lines that are not understood, at most maxWrong
}

const (
	maxServers   = 8 // resolvers use three
	maxWrong     = 3
	maxConf      = 64 << 10 // bytes
	maxLinks     = 8
	stubResolver = "127.0.0.53" // where systemd-resolved listens

	// resolvedConf is where it says whom it asks.
	resolvedConf = "/run/systemd/resolve/resolv.conf"
)

// parseResolvConf reads the text of one.
func parseResolvConf(text []byte) (conf resolvConf) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != "nameserver" {
			continue
		}
		if len(fields) < 2 {
			conf.refuse("nameserver without an address")
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			conf.refuse(fmt.Sprintf("nameserver %.60q, which is not an address", fields[1]))
			continue
		}
		at := netip.AddrPortFrom(addr.Unmap(), 53)
		if len(conf.servers) < maxServers && !slices.Contains(conf.servers, at) {
			conf.servers = append(conf.servers, at)
		}
	}
	return conf
}

func (c *resolvConf) refuse(line string) {
	if len(c.wrong) < maxWrong {
		c.wrong = append(c.wrong, line)
	}
}

// readResolvConf reads the node's. Where it names nobody but systemd-resolved on
// the node itself, those whom that asks are asked: what it might have been told to
// ask in turn is the cluster's DNS.
func readResolvConf(root, path string) (resolvConf, error) {
	text, err := readBelow(root, path)
	if err != nil {
		return resolvConf{}, err
	}
	conf := parseResolvConf(text)
	stub := netip.AddrPortFrom(netip.MustParseAddr(stubResolver), 53)
	if !slices.Contains(conf.servers, stub) {
		return conf, nil
	}
	text, err = readBelow(root, resolvedConf)
	if err != nil {
		return conf, nil // resolved itself is all there is
	}
	behind := parseResolvConf(text)
	if len(behind.servers) == 0 {
		return conf, nil
	}
	at := slices.Index(conf.servers, stub)
	others := slices.Delete(slices.Clone(conf.servers), at, at+1)
	for _, server := range others {
		if !slices.Contains(behind.servers, server) {
			behind.servers = append(behind.servers, server)
		}
	}
	behind.wrong = append(behind.wrong, conf.wrong...)
	return behind, nil
}

// readBelow reads a file of the node whose root is seen somewhere else. Links in
// it, as /etc/resolv.conf is often one, are those of the node.
func readBelow(root, path string) ([]byte, error) {
	for range maxLinks {
		target, err := os.Readlink(filepath.Join(root, path))
		if err != nil {
			break // no link
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = filepath.Clean(target)
	}
	file, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxConf+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxConf {
		return nil, fmt.Errorf("reading %s: %w", path, errLong)
	}
	return text, nil
}

var errLong = errors.New("it is longer than 64 KiB")

// upstreams are those of a resolv.conf that are not this cluster's own, and what
// is wrong with it.
func (o *Options) confUpstreams(conf resolvConf, failure error) (all []model.Upstream, problems []model.Problem) {
	problem := func(reason, message string) {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: o.Node, Reason: reason,
			Message: message, Remedy: "mend " + o.ResolvConf + " of the node, or name servers in Network/default, spec.dns.upstreams",
		})
	}
	if failure != nil {
		problem("ResolvConfNotRead", fmt.Sprintf("it is not known whom to ask for names outside of the cluster: %v", failure))
		return nil, problems
	}
	for _, line := range conf.wrong {
		problem("ResolvConfInvalid", fmt.Sprintf("%s says %s; the line is ignored", o.ResolvConf, line))
	}
	for _, at := range conf.servers {
		if slices.Contains(o.Own, at.Addr()) {
			problem("UpstreamIsOurselves", fmt.Sprintf("%s names %s, where the cluster's DNS itself answers; it is not asked", o.ResolvConf, at.Addr()))
			continue
		}
		all = append(all, model.Upstream{At: at})
	}
	if len(all) == 0 {
		problem("NoUpstreams", fmt.Sprintf("%s names no server that could be asked for names outside of the cluster", o.ResolvConf))
	}
	return all, problems
}
