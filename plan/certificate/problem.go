package certificate

import (
	"cmp"
	"fmt"
	"net/url"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// OfServer is the kind of failures of the authority itself, which has not said any.
const OfServer = "server"

// OfClock is the kind of failures of who has certificates that end as they come.
const OfClock = "clock"

// Remedy is what to do about failures of a kind.
func Remedy(kind string) string { return cmp.Or(remedies[kind], "mend that") }

// remedies are for failures, by their type.
var remedies = map[string]string{
	"dns":                     "give the name the addresses of the gateways, which kubectl get ingress shows",
	"connection":              "give the name the addresses of the gateways, which kubectl get ingress shows, and let the authority come to port 80 of them, through load balancers and firewalls",
	"unauthorized":            "let the name lead to the gateways alone: something else has answered",
	"incorrectResponse":       "let the name lead to the gateways alone: something else has answered",
	"caa":                     "let the CAA record of the name allow the authority",
	"rejectedIdentifier":      "use a name that the authority gives certificates for, or name a Secret in spec.tls",
	"serverInternal":          "wait: something is wrong at the authority",
	"accountDoesNotExist":     "wait: another account is made",
	OfClock:                   "set the clocks of the nodes, or have the authority give certificates that last",
	"rateLimited":             "wait: it is tried again when the authority lets us",
	OfServer:                  "see that the gateways can reach the authority, and correct spec.ingress.acme of the Network",
	"externalAccountRequired": "set spec.ingress.acme.externalAccount of the Network: this authority wants to know you by an account",
	"invalidContact":          "correct spec.ingress.acme.email of the Network",
	"unsupportedContact":      "correct spec.ingress.acme.email of the Network",
}

// Problems says which hosts have no certificate, or will have none soon, and why:
// those whose last attempt has failed, and all that are due if trouble, which may be
// empty, keeps anything from being ordered.
func Problems(wanted []Wanted, state *State, server, trouble, remedy string, now time.Time) (all []model.Problem) {
	if server == "" {
		return nil
	}
	due := map[string]struct{}{}
	if trouble != "" {
		for _, host := range Compute(wanted, state, server, now).Order {
			due[host] = struct{}{}
		}
	}
	for _, w := range wanted {
		why, next := "", ""
		if attempt, ok := state.Attempts[w.Host]; ok && attempt.Server == server && attempt.Failures > 0 {
			why, next = attempt.Error, Remedy(attempt.Kind)
			next += "; it is tried again ever more rarely, and at once after kubectl delete secret -n " + model.CertificateNamespace + " " + model.AttemptOf(w.Host).Name
		} else if _, is := due[w.Host]; is {
			why, next = trouble, remedy
		}
		if why == "" {
			continue
		}
		reason, what := "CertificateNotOrdered", "no certificate could be ordered for "+w.Host
		if held, ok := state.Held[w.Host]; ok && held.Until.After(now) {
			reason, what = "CertificateNotRenewed", fmt.Sprintf("the certificate of %s, which ends at %s, could not be renewed", w.Host, held.Until.UTC().Format(time.RFC3339))
		}
		all = append(all, model.Problem{
			Kind: "Ingress", Namespace: w.Ingress.Namespace, Name: w.Ingress.Name, Field: w.Field, Reason: reason,
			Message: fmt.Sprintf("%s by %s: %s", what, authority(server), why), Remedy: next,
		})
	}
	return all
}

// authority names a server.
func authority(server string) string {
	if at, err := url.Parse(server); err == nil && at.Host != "" {
		return at.Host
	}
	return server
}
