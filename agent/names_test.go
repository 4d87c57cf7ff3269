package agent

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// TestNamesWhenAsked: what only names are made of is not followed on a node where
// no server wants them.
func TestNamesWhenAsked(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/29")
	a := start(t, cluster, t.TempDir())
	select {
	case <-cluster.asked:
		t.Fatal("names are followed though nobody asked")
	default:
	}
	var conn net.Conn
	eventually(t, "the agent to listen for servers", func() bool {
		var err error
		conn, err = net.Dial("unix", filepath.Join(a.config.RunDir, "dns", feed.Socket))
		return err == nil
	})
	defer conn.Close()
	select {
	case <-cluster.asked:
	case <-time.After(10 * time.Second):
		t.Error("a server has dialled, and names are not followed")
	}
}
