package daemon

import (
	"os"
	"strings"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// maxSearch bounds the domains of a search path, as resolvers do.
const maxSearch = 32

// searchPath is that of the node, which kubelets put behind that of the cluster.
// Of several lines the last one counts (resolv.conf(5)). What cannot be read is no
// path.
func searchPath(resolvConf string) (path []dns.Name) {
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "search" && fields[0] != "domain" {
			continue
		}
		path = nil
		for _, domain := range fields[1:min(len(fields), 1+maxSearch)] {
			if name, err := dns.ParseName(domain); err == nil && len(name) > 1 {
				path = append(path, name)
			}
		}
	}
	return path
}
