package daemon

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// Details is what a gateway says of itself (fairlead status asks for it). It only
// grows.
type Details struct {
	Version   string           `json:"version"`
	Revision  uint64           `json:"revision"` // of what is served; 0: nothing yet
	Listening []netip.AddrPort `json:"listening,omitempty"`
	HTTP3     bool             `json:"http3"` // it is answered, too
	Hosts     int              `json:"hosts"` // that there are routes of
	// Unfed says what cannot be watched now: what is served may be old.
	Unfed []string `json:"unfed,omitempty"`
	// Certificates are those that end soon, have ended, or could not be ordered: up to
	// mostDetails, of so many more.
	Certificates     []v1alpha1.Problem `json:"certificates,omitempty"`
	MoreCertificates int                `json:"moreCertificates,omitempty"`
	// Problems are how many others there are of Ingresses and of what they name, by
	// reason.
	Problems map[string]int `json:"problems,omitempty"`
}

// mostDetails bounds what is listed.
const mostDetails = 20

// serveDetails says how this gateway does.
func (d *daemon) serveDetails(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.details(time.Now()))
}

func (d *daemon) details(now time.Time) Details {
	is, _ := d.serving.latest()
	details := Details{Version: d.Version, Revision: d.serves.Load(), Problems: map[string]int{}}
	for _, l := range d.server.Listening() {
		if l.HTTP3 {
			details.HTTP3 = true
			continue
		}
		details.Listening = append(details.Listening, l.At)
	}
	for _, p := range d.Source.Problems() {
		if p.Kind == kindAPIServer {
			details.Unfed = append(details.Unfed, p.Message)
		}
	}
	if is.table == nil {
		return details
	}
	details.Hosts = is.table.Hosts.Len()
	for _, p := range is.problems {
		if p.Kind != kindAPIServer {
			details.Problems[p.Reason]++
		}
	}
	wrong := append(is.unordered(now), d.ending(now)...)
	slices.SortFunc(wrong, model.Problem.Compare)
	details.Certificates = kube.Problems(wrong, mostDetails)
	details.MoreCertificates = len(wrong) - len(details.Certificates)
	return details
}

// kindAPIServer is that of problems with what is watched; all others are of objects.
const kindAPIServer = "APIServer"

// ending says which certificates end soon, or have ended.
func (d *daemon) ending(now time.Time) (all []model.Problem) {
	secured := d.secured.Load()
	if secured == nil {
		return nil
	}
	for key, p := range secured.by {
		if p.leaf == nil || !endsSoon(p.leaf, now) {
			continue
		}
		names, rest := p.leaf.DNSNames, ""
		if len(names) > 3 {
			names, rest = names[:3], " …"
		}
		reason, what := "CertificateEndsSoon", "ends at"
		if now.After(p.leaf.NotAfter) {
			reason, what = "CertificateEnded", "has ended at"
		}
		all = append(all, model.Problem{
			Kind: "Secret", Namespace: key.Namespace, Name: key.Name, Reason: reason,
			Message: fmt.Sprintf("the certificate of %s%s %s %s", strings.Join(names, ", "), rest, what, p.leaf.NotAfter.UTC().Format(time.RFC3339)),
			Remedy:  "renew it, or see why who is to renew it does not: kubectl describe secret -n " + key.Namespace + " " + key.Name,
		})
	}
	return all
}

// mostLeft is how long before its end a certificate ends soon, at most.
const mostLeft = 21 * 24 * time.Hour

// endsSoon tells whether less than a sixth of a certificate's life is left. Who renews
// certificates does so when a third is left, as a rule.
func endsSoon(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < min(c.NotAfter.Sub(c.NotBefore)/6, mostLeft)
}
