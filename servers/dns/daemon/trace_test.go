package daemon

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/lookup"
)

// TestTrace: what becomes of a pod's lookup is told step by step, and counts for
// nobody.
func TestTrace(t *testing.T) {
	n := begin(t)
	n.put("web", "10.96.0.20")
	n.connect(model.PodKey{Namespace: "default", Name: "asks"}, "10.244.0.5")
	d := n.assemble()
	look := func(query string) *lookup.Lookup {
		t.Helper()
		code, text := get(d, "/debug/trace?"+query)
		l := &lookup.Lookup{}
		if err := json.Unmarshal([]byte(text), l); code != http.StatusOK || err != nil {
			t.Fatalf("%s: %d %s", query, code, text)
		}
		return l
	}
	if l := look("client=10.244.0.5&name=web"); l.Found || len(l.Notes) != 1 {
		t.Errorf("before anything is known: %+v", l)
	}
	n.know()
	n.tell(d)

	l := look("client=10.244.0.5&name=web.default&type=A")
	if !l.Found || l.Pod != "default/asks" || l.Node != "node1" || strings.Join(l.Search, " ") != "default.svc.cluster.local svc.cluster.local cluster.local corp.example" {
		t.Errorf("a name of the cluster: %+v", l)
	}
	if len(l.Queries) != 1 || l.Queries[0].Completed != "web.default.svc.cluster.local." || l.Without != 2 || len(l.Queries[0].Steps) != 3 {
		t.Errorf("with completion: %+v", l)
	}
	if l = look("client=10.244.0.5&name=web.default&type=A&completion=false"); !l.Found || len(l.Queries) != 2 || l.Queries[0].Rcode != "NXDOMAIN" || l.Completion {
		t.Errorf("without completion: %+v", l)
	}
	if l = look("client=10.244.0.5&name=localhost.&type=A"); !l.Found || l.Queries[0].Steps[0].By != "server" || l.Queries[0].Records[0].Data != "127.0.0.1" {
		t.Errorf("localhost: %+v", l)
	}
	if l = look("client=10.244.0.5&name=www.example.&type=A"); l.Found || l.Queries[0].Rcode != "SERVFAIL" || l.Queries[0].Steps[0].By != "nobody" || len(l.Queries[0].Steps[0].Details) == 0 {
		t.Errorf("nobody answers: %+v", l)
	}
	if l = look("client=10.9.9.9&name=web.&type=A"); l.Queries[0].Rcode != "" || len(l.Notes) != 1 {
		t.Errorf("a stranger: %+v", l)
	}
	if l = look("client=10.244.0.5&name=web.&type=A&policy=None&nameserver=192.0.2.1"); len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "asks 192.0.2.1 first") {
		t.Errorf("another resolver: %+v", l)
	}
	for query, want := range map[string]string{
		"name=a": "client", "client=10.244.0.5": "name", "client=10.244.0.5&name=a&type=ANY": "type", "client=10.244.0.5&name=a&ndots=x": "ndots",
	} {
		if code, text := get(d, "/debug/trace?"+query); code != http.StatusBadRequest || !strings.HasPrefix(text, want+":") {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
	if clients := d.clients(); len(clients) > 0 {
		t.Errorf("it was counted: %+v", clients)
	}
}

// TestQueryLogFollows: queries are logged as long as the Network says so, and
// somebody takes the lines.
func TestQueryLogFollows(t *testing.T) {
	n := begin(t)
	n.know()
	d := n.assemble()
	for _, test := range []struct {
		oneIn uint32
		to    io.Writer
		want  bool
	}{{0, io.Discard, false}, {7, nil, false}, {7, io.Discard, true}, {0, io.Discard, false}} {
		d.Queries = test.to
		n.feed.Edit(func(s *model.Snapshot) {
			network := *s.Network
			network.DNS.LogOneIn = test.oneIn
			s.Network = &network
		})
		n.tell(d)
		if served := d.served.Load(); (served.Log != nil) != test.want || served.LogOneIn != test.oneIn {
			t.Errorf("%+v: %v, one in %d", test, served.Log != nil, served.LogOneIn)
		}
	}
}
