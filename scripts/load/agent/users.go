package agent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wirepost/wirepost/scripts/devkeys"
)

const tokenTTL = 24 * time.Hour

// users says which device is whose, and what they are called. Nothing is stored for each.
type users struct {
	plan *Plan
}

// of returns the user of a device. With Fanout a group is a sender and then all devices
// of its recipient.
func (u users) of(device int) int {
	if u.plan.Traffic != Fanout {
		return device
	}
	group, place := u.place(device)
	return 2*group + min(place, 1)
}

// place returns where a device stands in Fanout: place 0 is the sender.
func (u users) place(device int) (group, place int) {
	return device / (u.plan.Devices + 1), device % (u.plan.Devices + 1)
}

// groups is how many whole groups there are with Fanout.
func (u users) groups() int { return u.plan.Conns / (u.plan.Devices + 1) }

// id returns a user's id.
func (u users) id(user int) string {
	if u.plan.Secret == "" {
		id, _ := Subject(u.plan.Tokens[user]) // check has looked at it
		return id
	}
	return u.plan.Run + "-" + strconv.Itoa(u.plan.Index) + "-" + strconv.Itoa(user)
}

// token returns what a device logs in with.
func (u users) token(device int) (string, error) {
	if u.plan.Secret == "" {
		return u.plan.Tokens[u.of(device)], nil
	}
	return devkeys.Token([]byte(u.plan.Secret), u.id(u.of(device)), tokenTTL)
}

func (u users) check() error {
	if u.plan.Secret != "" {
		return nil
	}
	if need := u.of(u.plan.Conns-1) + 1; need > len(u.plan.Tokens) {
		return fmt.Errorf("%d tokens are too few for %d users", len(u.plan.Tokens), need)
	}
	for _, t := range u.plan.Tokens {
		if _, err := Subject(t); err != nil {
			return err
		}
	}
	return nil
}

// Subject returns whose a token is. It checks nothing else: that is the gateway's part.
func Subject(token string) (string, error) {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(strings.TrimSpace(token), &claims); err != nil {
		return "", fmt.Errorf("a token is no JWT: %w", err)
	}
	return claims.Subject, nil
}
