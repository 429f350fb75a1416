package trialrpc_test

const processEnv = "TIDEGATE_TRIALRPC_PROCESS"

func process() int { return 0 }
