package agent

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// logged is a log that counts its messages by level: what goes wrong without
// having a metric of its own shows there.
type logged struct {
	slog.Handler
	messages *prometheus.CounterVec
}

func (m *metrics) logged(log *slog.Logger) *slog.Logger {
	return slog.New(logged{log.Handler(), m.messages})
}

// Enabled asks for what may not be written, too: it counts.
func (l logged) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l logged) Handle(ctx context.Context, record slog.Record) error {
	level := "info"
	switch {
	case record.Level >= slog.LevelError:
		level = "error"
	case record.Level >= slog.LevelWarn:
		level = "warn"
	}
	l.messages.WithLabelValues(level).Inc()
	if !l.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, record)
}

func (l logged) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logged{l.Handler.WithAttrs(attrs), l.messages}
}

func (l logged) WithGroup(name string) slog.Handler {
	return logged{l.Handler.WithGroup(name), l.messages}
}
