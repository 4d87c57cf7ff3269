package http2

import "encoding/binary"

// setting is what one side tells the other one (RFC 9113, section 6.5.2).
type setting uint16

const (
	settingTableSize       setting = 1
	settingPush            setting = 2
	settingStreams         setting = 3
	settingWindow          setting = 4
	settingFrame           setting = 5
	settingHeadSize        setting = 6
	settingExtendedConnect setting = 8 // RFC 8441
)

// settingSize is that of one in its frame.
const settingSize = 6

// appendSettings appends those of this side.
func appendSettings(b []byte, streams, head int) []byte {
	all := []struct {
		name  setting
		value int
	}{
		{settingStreams, streams},
		{settingWindow, streamWindow},
		{settingHeadSize, head},
		{settingExtendedConnect, 1},
	}
	b = appendFrame(b, len(all)*settingSize, kindSettings, 0, 0)
	for _, s := range all {
		b = binary.BigEndian.AppendUint16(b, uint16(s.name))
		b = binary.BigEndian.AppendUint32(b, uint32(s.value))
	}
	return b
}

// settings takes those of the client.
func (r *reader) settings(f *frame) *Error {
	switch {
	case f.stream != 0:
		return broken(ProtocolError, "SETTINGS are of no stream")
	case f.has(flagAck) && len(f.payload) > 0, len(f.payload)%settingSize != 0:
		return broken(FrameSizeError, "SETTINGS are of another size")
	case f.has(flagAck):
		return nil
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	window := int64(-1)
	for b := f.payload; len(b) > 0; b = b[settingSize:] {
		name, value := setting(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint32(b[2:])
		if name == settingWindow && value <= maxWindow {
			window = int64(value) // the last one counts: each costs a look at all streams
			continue
		}
		if err := c.set(name, value); err != nil {
			return err
		}
	}
	if window >= 0 {
		if err := c.set(settingWindow, uint32(window)); err != nil {
			return err
		}
	}
	c.out = appendFrame(c.out, 0, kindSettings, flagAck, 0)
	c.flush()
	return nil
}

// set takes one. The lock is held.
func (c *Conn) set(name setting, value uint32) *Error {
	switch name {
	case settingTableSize:
		c.encoder.resize(int(min(value, tableSize)))
	case settingPush, settingExtendedConnect:
		if value > 1 {
			return broken(ProtocolError, "a setting that is on or off is neither")
		}
	case settingWindow:
		if value > maxWindow {
			return broken(FlowControlError, "a window is larger than windows may be")
		}
		by := int64(value) - c.initial
		c.initial = int64(value)
		for _, s := range c.streams {
			if s.window += by; s.window > maxWindow {
				return broken(FlowControlError, "a window is larger than windows may be")
			}
			s.wakeWriter()
		}
	case settingFrame: // no frame of ours is longer than the least that may be asked for
		if value < maxFrame || value >= 1<<24 {
			return broken(ProtocolError, "the longest frame is none")
		}
	}
	return nil
}
