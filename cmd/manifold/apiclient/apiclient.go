// Package apiclient speaks to the Platform API for those of our commands that
// the heroku CLI does not have, with the heroku CLI's own address and
// credentials. It must never ask for a password, nor print a token.
package apiclient

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manifold"
	"manifold/cmd/manifold/clientenv"
)

// Client calls one platform as one user.
type Client struct {
	base, token string
	http        *http.Client
}

// New takes both from where the heroku CLI has them: the address from
// HEROKU_HOST, the token from HEROKU_API_KEY or ~/.netrc. Without HEROKU_HOST it
// is this machine's platform, as its first user if nobody else is logged in.
func New(settings manifold.Settings) (*Client, error) {
	here := "http://" + settings.APIAddr
	base := cmp.Or(os.Getenv("HEROKU_HOST"), here)
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("HEROKU_HOST is %q, which is no URL: run: eval \"$(manifold env)\"", base)
	}
	token := os.Getenv("HEROKU_API_KEY")
	if token == "" {
		// With its port, as the heroku CLI writes it there.
		if token, err = netrc(u.Host); err != nil {
			return nil, err
		}
	}
	if token == "" && base == here {
		if token, err = clientenv.Token(settings); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return nil, errors.New("nobody is logged in: run eval \"$(manifold env)\", or heroku login -i")
	}
	// No proxy: it is this machine's loopback in every supported setting.
	client := &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: time.Minute}
	return &Client{base: strings.TrimSuffix(base, "/"), token: token, http: client}, nil
}

// netrc finds a host's password in ~/.netrc (netrc(5) of ftp).
func netrc(host string) (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find ~/.netrc: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(home, ".netrc"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read ~/.netrc: %w", err)
	}
	return password(string(text), host), nil
}

func password(text, host string) string {
	words := strings.Fields(text)
	for i, here := 0, false; i+1 < len(words); i++ {
		switch words[i] {
		case "machine":
			i++
			here = words[i] == host
		case "password":
			i++
			if here {
				return words[i]
			}
		case "login", "account":
			i++
		}
	}
	return ""
}

// Call does one request; reply may be nil. Of a list it gets the first 1,000.
// An error of the platform's is its sentence for people.
func (c *Client) Call(ctx context.Context, method, path string, body, reply any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.heroku+json; version=3")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Range", "max=1000")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("reach the platform (is it running, and HEROKU_HOST right?): %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, manifold.MaxWireBody))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		var failure manifold.ErrorBody
		if json.Unmarshal(answer, &failure) != nil || failure.Message == "" {
			return fmt.Errorf("the platform answered %s", res.Status)
		}
		return errors.New(failure.Message)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(answer, reply)
}
