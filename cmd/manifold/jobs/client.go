package jobs

import (
	"bytes"
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
)

// client speaks to the Platform API as the heroku CLI does: to HEROKU_HOST,
// with the token of HEROKU_API_KEY or of ~/.netrc.
type client struct {
	base, token string
	http        *http.Client
}

func newClient(settings manifold.Settings) (*client, error) {
	base := os.Getenv("HEROKU_HOST")
	if !strings.Contains(base, "://") {
		base = "http://" + settings.APIAddr
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("HEROKU_HOST is %q, which is no URL: run: eval \"$(manifold env)\"", base)
	}
	token := os.Getenv("HEROKU_API_KEY")
	if token == "" {
		if token, err = netrc(u.Hostname()); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return nil, errors.New("nobody is logged in: run eval \"$(manifold env)\", or heroku login -i")
	}
	return &client{base: strings.TrimSuffix(base, "/"), token: token, http: &http.Client{Timeout: time.Minute}}, nil
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

// call does one request; reply may be nil.
func (c *client) call(ctx context.Context, method, path string, body, reply any) error {
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
