package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// What dnsperf 2.10 says in the end.
var (
	perfCompleted = regexp.MustCompile(`Queries completed: +(\d+)`)
	perfLost      = regexp.MustCompile(`Queries lost: +(\d+)`)
	perfTime      = regexp.MustCompile(`Run time \(s\): +([0-9.]+)`)
)

// dnsperf asks what a file has, for a while, as fast as answers come, with as many
// clients and queries under way as shoot.
func dnsperf(at netip.AddrPort, file string, during time.Duration) (outcome, error) {
	command := exec.Command("dnsperf", "-s", at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "-d", file, "-e",
		"-l", strconv.Itoa(int(during.Seconds())), "-c", strconv.Itoa(clients), "-q", strconv.Itoa(clients*window),
		"-t", strconv.Itoa(int(patience.Seconds())))
	said, err := command.CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("run dnsperf (apt-get install dnsperf): %w\n%s", err, said)
	}
	number := func(of *regexp.Regexp) (n float64) {
		found := of.FindSubmatch(said)
		if found == nil {
			err = fmt.Errorf("dnsperf does not say %q:\n%s", of, said)
			return 0
		}
		n, _ = strconv.ParseFloat(string(found[1]), 64)
		return n
	}
	o := outcome{answered: int(number(perfCompleted)), lost: int(number(perfLost)), took: time.Duration(number(perfTime) * float64(time.Second))}
	return o, err
}
