package agent

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// DNSUser is who the DNS server of a node is, a process of its own: no user of the
// node. It alone may dial the socket in the directory dns of Config.RunDir.
const DNSUser = 65532

// newNameServers is all that has to do with that server.
func newNameServers(c *Config, feed *model.Feed, notices *notices) *nameServers {
	w := &nameServers{
		node: c.Node, feed: feed, synced: c.Source.Synced(), asked: make(chan struct{}), told: newNames(c, feed, notices), log: c.Log,
	}
	w.domains = newDomains(c, feed, w.told.Resolves, notices, filepath.Join(c.RunDir, "domains.json"))
	w.told.Learn = w.domains.Learn
	return w
}

// newNames tells that server what the names of the cluster are made of. Some of it
// is nothing to anybody else, and is not watched until a server has dialled.
func newNames(c *Config, from *model.Feed, notices *notices) *feed.Sender {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty: it cannot be told
	return &feed.Sender{
		Feed: from, Dir: filepath.Join(c.RunDir, "dns"), User: DNSUser,
		Program: c.Version, Boot: strings.TrimSpace(string(boot)), Log: c.Log,
		Asked: c.Source.FollowNames,
		Tell:  func(problems ...model.Problem) { notices.set("dns", problems...) },
	}
}
