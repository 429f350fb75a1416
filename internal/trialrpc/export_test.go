package trialrpc

import "time"

// SetSilence makes a client lose patience with a silent stream sooner.
func (c *Client) SetSilence(d time.Duration) { c.silence = d }
