package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/drop"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// droppedCommand is how drops asks a node: it runs in the agent's container.
func droppedCommand() *cobra.Command {
	var agent, since string
	var follow bool
	command := &cobra.Command{
		Use:    "dropped",
		Hidden: true,
		Short:  "Say what policies dropped on this node (drops asks each node)",
		Long: `Say as JSON what policies dropped on this node: what is remembered or, with -f,
what comes, one a line, for some minutes. It reads, and changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			query := url.Values{}
			if since != "" {
				query.Set("since", since)
			}
			at := "http://" + agent + "/debug/drops?"
			if !follow {
				return fetch(command.Context(), command.OutOrStdout(), at+query.Encode())
			}
			query.Set("follow", "")
			return copyFrom(command.Context(), command.OutOrStdout(), at+query.Encode())
		},
	}
	flags := command.Flags()
	flags.StringVar(&agent, "agent", "127.0.0.1:9811", "the agent's --health-address")
	flags.StringVar(&since, "since", "", "only what is later: a time as in RFC 3339")
	flags.BoolVarP(&follow, "follow", "f", false, "go on as it comes")
	return command
}

// copyFrom copies what an agent serves, as it comes.
func copyFrom(ctx context.Context, to io.Writer, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(request) // not by way of a proxy
	if err != nil {
		return fmt.Errorf("ask the agent: %w; it may be starting, or have another --health-address", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the agent for %s: %s; it may be of another version", url, answer.Status)
	}
	_, err = io.Copy(to, answer.Body)
	return err
}

// tailPause is before a node is asked again that did not answer.
const tailPause = 2 * time.Second

// tail writes what comes, until the user ends it. A node that does not answer is
// said once, and asked again; one that joins later is not asked.
func (o *dropsOptions) tail(ctx context.Context, to, stderr io.Writer, client *kube.Client, places []trace.Place, known dropsOutput) error {
	var tailing sync.WaitGroup
	defer tailing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var failed error
	for _, place := range places {
		t := &tailed{options: o, client: client, place: place, said: place.Trouble}
		t.say = func(text string) { mu.Lock(); defer mu.Unlock(); fmt.Fprintln(stderr, text) }
		t.show = func(record *drop.Record) {
			mu.Lock()
			defer mu.Unlock()
			if err := o.write(to, []*drop.Record{record}); err != nil && failed == nil {
				failed = err // nobody reads any more
				cancel()
			}
		}
		for _, record := range slices.Backward(known.Drops) {
			if record.Node == place.Name {
				t.since = record.Time
				break
			}
		}
		tailing.Go(func() { t.run(ctx) })
	}
	<-ctx.Done()
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// tailed is a node that is followed.
type tailed struct {
	options *dropsOptions
	client  *kube.Client
	place   trace.Place
	since   time.Time
	said    string // trouble that was told
	say     func(string)
	show    func(*drop.Record)
}

// run follows the node until the context ends.
func (t *tailed) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := t.follow(ctx)
		if err == nil || ctx.Err() != nil {
			continue // it is asked for some minutes at a time
		}
		if t.said != err.Error() {
			t.said = err.Error()
			t.say(fmt.Sprintf("%s: %v; asking again", t.place.Name, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(tailPause):
		}
		// Its agent may have another pod by now.
		again := *t.options
		again.node = t.place.Name
		if _, places, err := again.places(ctx); err == nil {
			t.place = places[0]
		}
	}
}

func (t *tailed) follow(ctx context.Context) error {
	if t.place.Trouble != "" {
		return errors.New(t.place.Trouble)
	}
	command := []string{agentProgram, "dropped", "-f"}
	if !t.since.IsZero() {
		command = append(command, "--since", t.since.Format(time.RFC3339Nano))
	}
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := t.client.ExecAgentTo(ctx, writer, t.place.Agent, nil, command...)
		_ = writer.CloseWithError(err)
		done <- err
	}()
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		record := &drop.Record{}
		if err := json.Unmarshal(lines.Bytes(), record); err != nil {
			_ = reader.CloseWithError(err)
			<-done
			return fmt.Errorf("its agent's answer is not understood, which may be of another version: %w", err)
		}
		t.since, t.said = record.Time, ""
		if record.Is(t.options.namespace, t.options.pod) {
			t.show(record)
		}
	}
	err := lines.Err() // that of the command, too
	_ = reader.Close()
	<-done
	return err
}
