package app

type loadCmd struct{}
