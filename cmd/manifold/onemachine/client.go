package onemachine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"manifold"
	"manifold/cmd/manifold/clientenv"
)

// client speaks to our own doors, all of them on this machine: no proxy.
type client struct {
	settings manifold.Settings
	http     *http.Client // TCP
	socket   *http.Client // the agent's socket
}

func newClient(s manifold.Settings) *client {
	path := filepath.Join(s.Run, "agent.sock")
	return &client{
		settings: s,
		http:     &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: 15 * time.Second},
		socket: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		}},
	}
}

// coordinatorUp asks who we are: that needs API, store and token.
func (c *client) coordinatorUp(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/account", nil, nil)
}

// routerUp takes any answer: without a table every app is unknown to it.
func (c *client) routerUp(ctx context.Context) error {
	_, _, err := c.visit(ctx, "localhost")
	return err
}

func (c *client) agentUp(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/ps", nil)
	if err != nil {
		return err
	}
	res, err := c.socket.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the agent answered %s", res.Status)
	}
	return nil
}

// teardown tells the agent to stop every dyno and remove all that is ours.
// now skips the dynos' grace. It returns when the agent has done it.
func (c *client) teardown(ctx context.Context, now bool) error {
	url := "http://agent/v1/teardown"
	if now {
		url += "?now=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	res, err := c.socket.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the agent answered %s: %s", res.Status, bytes.TrimSpace(text))
	}
	return err
}

var errNotFound = errors.New("not found")

// call does one Platform API request.
func (c *client) call(ctx context.Context, method, path string, body, reply any) error {
	token, err := clientenv.Token(c.settings)
	if err != nil {
		return err
	}
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.settings.APIAddr+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, manifold.MaxWireBody))
	if err != nil {
		return err
	}
	switch {
	case res.StatusCode == http.StatusNotFound:
		return errNotFound
	case res.StatusCode/100 != 2:
		failure := manifold.ErrorBody{Message: res.Status}
		_ = json.Unmarshal(text, &failure) // a body of another form leaves the status to speak
		return fmt.Errorf("%s %s: %s", method, path, failure.Message)
	case reply == nil:
		return nil
	}
	return json.Unmarshal(text, reply)
}

// visit fetches / of a host name through the router.
func (c *client) visit(ctx context.Context, host string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.settings.RouterAddr+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	res, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, string(text), err
}
