package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// The values of spec.dns.podNames and spec.dns.select.
const (
	podNamesDisabled = "disabled"
	podNamesVerified = "verified"
	selectFastest    = "fastest"
	selectOrdered    = "ordered"
)

// maxZone is how long the cluster's domain may be, so that the name of any Service,
// with its namespace, is not too long (RFC 1035, section 3.1): 255 bytes, without
// two labels of 64 with their lengths, svc, and the root.
const maxZone = 255 - 2*64 - 4 - 2

// maxLogOneIn is as good as no query by chance, so that there are only those that
// fail.
const maxLogOneIn = 1_000_000_000

func (r *networkReader) dns(spec *v1alpha1.DNS) {
	to := &r.network.DNS
	if spec.Zone != "" {
		r.zone("spec.dns.zone", spec.Zone, &to.Zone)
	}
	if len(to.Zone) > maxZone {
		r.wrong("spec.dns.zone", fmt.Sprintf("it has %d characters, more than %d, so that names of Services would be too long", len(to.Zone), maxZone))
		to.Zone = model.DefaultDNS().Zone
	}
	r.atMost("spec.dns.ttl", spec.TTL, 3600, &to.TTL)
	for field, part := range map[string]struct {
		text string
		to   *string
	}{
		"spec.dns.service.namespace": {spec.Service.Namespace, &to.Service.Namespace},
		"spec.dns.service.name":      {spec.Service.Name, &to.Service.Name},
	} {
		if len(validation.IsDNS1123Label(part.text)) == 0 {
			*part.to = part.text
		} else if part.text != "" {
			r.wrong(field, fmt.Sprintf("%q is not a name that a Service or a namespace could have", part.text))
		}
	}
	switch spec.PodNames {
	case "", podNamesDisabled:
	case podNamesVerified:
		to.PodNames = true
	default:
		r.wrong("spec.dns.podNames", fmt.Sprintf("%q is neither %s nor %s; %s is used", spec.PodNames, podNamesDisabled, podNamesVerified, podNamesDisabled))
	}
	to.NoCompletion = spec.Completion != nil && !*spec.Completion
	switch spec.Select {
	case "", selectFastest:
	case selectOrdered:
		to.Ordered = true
	default:
		r.wrong("spec.dns.select", fmt.Sprintf("%q is neither %s nor %s; %s is used", spec.Select, selectFastest, selectOrdered, selectFastest))
	}
	to.Upstreams = r.upstreams("spec.dns.upstreams", spec.Upstreams)
	r.stubs(spec.StubDomains)
	r.dnsCache(&spec.Cache)
	if n := spec.QueryLog.OneIn; n < 0 || n > maxLogOneIn {
		r.wrong("spec.dns.queryLog.oneIn", fmt.Sprintf("%d is not between 0, which logs nothing, and %d", n, maxLogOneIn))
	} else {
		to.LogOneIn = uint32(n)
	}
	slices.SortFunc(r.problems, model.Problem.Compare)
}

// zone reads a domain.
func (r *networkReader) zone(field string, from v1alpha1.Domain, to *string) bool {
	text := strings.ToLower(strings.TrimSuffix(string(from), "."))
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			r.wrong(field, fmt.Sprintf("%q is not a domain such as example.com", from))
			return false
		}
	}
	*to = text
	return true
}

// atMost reads a number of seconds.
func (r *networkReader) atMost(field string, from *int32, most int32, to *uint32) {
	switch {
	case from == nil:
	case *from < 0 || *from > most:
		r.wrong(field, fmt.Sprintf("%d is not between 0 and %d seconds", *from, most))
	default:
		*to = uint32(*from)
	}
}

func (r *networkReader) upstreams(field string, texts []v1alpha1.Upstream) (all []model.Upstream) {
	for _, text := range texts {
		upstream, err := model.ParseUpstream(string(text))
		if err != nil {
			r.wrong(field, err.Error())
			continue
		}
		if !slices.Contains(all, upstream) {
			all = append(all, upstream)
		}
	}
	return all
}

func (r *networkReader) stubs(from []v1alpha1.StubDomain) {
	to := &r.network.DNS
	for i := range from {
		field := fmt.Sprintf("spec.dns.stubDomains[%d]", i)
		var stub model.StubDomain
		if !r.zone(field+".zone", from[i].Zone, &stub.Zone) {
			continue
		}
		stub.Upstreams = r.upstreams(field+".upstreams", from[i].Upstreams)
		switch {
		case stub.Zone == to.Zone || strings.HasSuffix(stub.Zone, "."+to.Zone):
			r.wrong(field+".zone", fmt.Sprintf("%s is the cluster's own zone, or in it: its names are those of Services", stub.Zone))
		case slices.ContainsFunc(to.Stubs, func(other model.StubDomain) bool { return other.Zone == stub.Zone }):
			r.wrong(field+".zone", fmt.Sprintf("%s is there twice", stub.Zone))
		case len(stub.Upstreams) == 0:
			r.wrong(field+".upstreams", "there is no server of names to ask")
		default:
			to.Stubs = append(to.Stubs, stub)
		}
	}
	slices.SortFunc(to.Stubs, func(a, b model.StubDomain) int { return cmp.Compare(a.Zone, b.Zone) })
}

func (r *networkReader) dnsCache(spec *v1alpha1.DNSCache) {
	const week = 7 * 24 * 60 * 60
	to := &r.network.DNS.Cache
	switch {
	case spec.Mebibytes >= 1 && spec.Mebibytes <= 4096:
		to.Bytes = int64(spec.Mebibytes) << 20
	case spec.Mebibytes != 0:
		r.wrong("spec.dns.cache.mebibytes", fmt.Sprintf("%d is not between 1 and 4096", spec.Mebibytes))
	}
	r.atMost("spec.dns.cache.maxTTL", spec.MaxTTL, week, &to.MaxTTL)
	r.atMost("spec.dns.cache.maxNegativeTTL", spec.MaxNegativeTTL, 10800, &to.MaxNegativeTTL)
	r.atMost("spec.dns.cache.maxStale", spec.MaxStale, week, &to.MaxStale)
}

// dnsObjectOf is dns' inverse; nil of the defaults.
func dnsObjectOf(o *model.DNSOptions) object {
	if defaults := model.DefaultDNS(); o.Equal(&defaults) {
		return nil
	}
	written := object{
		"zone": o.Zone, "ttl": o.TTL, "completion": !o.NoCompletion,
		"service": object{"namespace": o.Service.Namespace, "name": o.Service.Name},
		"cache": object{
			"mebibytes": o.Cache.Bytes >> 20, "maxTTL": o.Cache.MaxTTL,
			"maxNegativeTTL": o.Cache.MaxNegativeTTL, "maxStale": o.Cache.MaxStale,
		},
	}
	if o.PodNames {
		written["podNames"] = podNamesVerified
	}
	if o.LogOneIn > 0 {
		written["queryLog"] = object{"oneIn": o.LogOneIn}
	}
	if o.Ordered {
		written["select"] = selectOrdered
	}
	upstreams := func(all []model.Upstream) (texts []string) {
		for _, upstream := range all {
			texts = append(texts, upstream.String())
		}
		return texts
	}
	if len(o.Upstreams) > 0 {
		written["upstreams"] = upstreams(o.Upstreams)
	}
	var stubs []object
	for _, stub := range o.Stubs {
		stubs = append(stubs, object{"zone": stub.Zone, "upstreams": upstreams(stub.Upstreams)})
	}
	if stubs != nil {
		written["stubDomains"] = stubs
	}
	return written
}
