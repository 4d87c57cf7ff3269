// Package dns answers queries for names: for those of the cluster from a
// plan/dns.Zone, in the loop that read the query, without locks or allocation;
// for all others it asks a Forwarder, in a bounded number of goroutines. It
// does not know where the zone comes from (servers/dns/feed does), nor how names
// of the outside are found (servers/dns/forward does), and resolves nothing
// itself. A Server is run once; what it serves may be replaced at any time, from
// anywhere.
package dns
