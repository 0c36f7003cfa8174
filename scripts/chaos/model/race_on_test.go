//go:build race

package model_test

const race = true
