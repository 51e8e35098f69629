package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// oneOff is the body of a request to run a command.
type oneOff struct {
	Attach     bool
	Command    string
	Env        environment
	ForceNoTTY bool `json:"force_no_tty"`
	Size       *size
	Type       string
	TimeToLive *int `json:"time_to_live"` // seconds
}

// environment reads values that are strings, as the schema has it, and those
// that are not: the CLI sends COLUMNS and LINES as numbers.
type environment map[string]string

func (e *environment) UnmarshalJSON(text []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	*e = environment{}
	for name, value := range raw {
		switch value[0] {
		case 'n': // null: not set
		case '"':
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				return err
			}
			(*e)[name] = s
		case '{', '[':
			return &manifold.InvalidError{What: "Environment variable", Why: clip(name) + " must be a string or a number"}
		default:
			(*e)[name] = string(value)
		}
	}
	return nil
}

// attach is the terminal that the client says it has, or its pipes.
func (o *oneOff) attach() manifold.Attach {
	side := func(name string) uint16 {
		n, err := strconv.ParseUint(o.Env[name], 10, 16)
		if err != nil {
			return 0
		}
		return uint16(n)
	}
	return manifold.Attach{Terminal: !o.ForceNoTTY, Rows: side("LINES"), Cols: side("COLUMNS")}
}

// readOneOff reads and checks a request to run a command.
func readOneOff(c *call) (oneOff, error) {
	var in oneOff
	if err := c.body(&in); err != nil {
		return in, err
	}
	switch {
	case strings.TrimSpace(in.Command) == "":
		return in, invalidParams("Command is missing: say what to run.")
	case len(in.Command) > manifold.MaxCommand:
		return in, invalidParams(fmt.Sprintf("Command may be at most %d KB long.", manifold.MaxCommand>>10))
	case strings.ContainsRune(in.Command, 0) || !utf8.ValidString(in.Command):
		return in, invalidParams("Command must be text without NUL bytes.")
	}
	return in, manifold.CheckConfig(in.Env)
}

// startOneOff is POST /apps/{app}/dynos.
func (a *api) startOneOff(c *call, app manifold.App) (answer, error) {
	in, err := readOneOff(c)
	if err != nil {
		return answer{}, err
	}
	o := scheduler.OneOff{App: app.ID, Type: in.Type, Command: in.Command, Env: in.Env}
	if in.Type != "" {
		if err := manifold.CheckProcessType(in.Type); err != nil {
			return answer{}, err
		}
	}
	name := manifold.DefaultSize // whatever the formation uses, as Heroku does
	if in.Size != nil {
		name = in.Size.name
	}
	if o.Size, err = manifold.ParseSize(name); err != nil {
		return answer{}, err
	}
	if in.TimeToLive != nil {
		if *in.TimeToLive < 1 || *in.TimeToLive > int(scheduler.MaxTTL/time.Second) {
			return answer{}, invalidParams(fmt.Sprintf("Time to live must be from 1 to %d seconds.", int(scheduler.MaxTTL/time.Second)))
		}
		o.TTL = time.Duration(*in.TimeToLive) * time.Second
	}
	if in.Attach {
		attach := in.attach()
		o.Attach = &attach
	}
	d, secret, err := a.Dynos.Start(c.Context(), o)
	if err != nil {
		return answer{}, oneOffFault(app, "", err)
	}
	c.say(app, "Starting process with command `%s`", d.Command)
	return a.showOneOff(c, app, d, secret)
}

// execInDyno is POST /apps/{app}/dynos/{dyno}: what `heroku run:inside` asks.
func (a *api) execInDyno(c *call, app manifold.App) (answer, error) {
	in, err := readOneOff(c)
	if err != nil {
		return answer{}, err
	}
	d, secret, err := a.Dynos.Exec(c.Context(), scheduler.Exec{
		App: app.ID, Dyno: c.PathValue("dyno"), Command: in.Command, Env: in.Env, Attach: in.attach(),
	})
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = a.noSuchDyno(app, c.PathValue("dyno"))
		}
		return answer{}, oneOffFault(app, c.PathValue("dyno"), err)
	}
	c.say(app, "Running command `%s` inside %s", in.Command, d.Name)
	return a.showOneOff(c, app, d, secret)
}

func (a *api) showOneOff(c *call, app manifold.App, d scheduler.Dyno, secret string) (answer, error) {
	ids, err := a.releaseIDs(c, app, []scheduler.Dyno{d})
	if err != nil {
		return answer{}, err
	}
	shown := dynoObject(app, d, ids[d.Release])
	if secret != "" {
		shown["attach_url"] = a.AttachURL(secret) // nobody sees it again: it is good once
	}
	return created(shown)
}

// oneOffFault words what keeps a command from being run.
func oneOffFault(app manifold.App, dyno string, err error) error {
	var limit *scheduler.LimitError
	switch {
	case errors.As(err, &limit):
		return &fault{Status: http.StatusUnprocessableEntity, ID: "cannot_run_above_limit", Message: limit.Error() + "."}
	case errors.Is(err, scheduler.ErrNoCode):
		return invalidParams(app.Name + " has no code yet that could be run. Push its code first: git push heroku main")
	case errors.Is(err, scheduler.ErrNotUp):
		return &fault{Status: http.StatusUnprocessableEntity, ID: "invalid_params", Message: clip(dyno) + " is not up. Look at: heroku ps -a " + app.Name}
	case errors.Is(err, scheduler.ErrNoHost):
		return &fault{Status: http.StatusServiceUnavailable, ID: "service_unavailable", Message: "N" + scheduler.ErrNoHost.Error()[1:] + "."}
	}
	return err
}
